package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A logDocument is a log, or a part of one, and what proves it. Bytes are in
// base64.
type logDocument struct {
	// VKey is the verifier key of the log, and Witness that of a witness
	// that must have cosigned, if there is one.
	VKey    string
	Witness string

	// Checkpoint is the signed note.
	Checkpoint string

	Entries []logEntry
	Tiles   []logTile
	Older   []olderTree
}

type logEntry struct {
	Index int64
	Data  []byte
	Proof tlog.RecordProof
}

type logTile struct {
	Path string
	Data []byte
}

// An olderTree is one that the log's tree extends.
type olderTree struct {
	Size  int64
	Root  tlog.Hash
	Proof tlog.TreeProof
}

func logMode([]string) (bool, error) {
	ok := true
	decoder := json.NewDecoder(bufio.NewReader(os.Stdin))
	decoder.DisallowUnknownFields()
	for {
		var document logDocument
		switch err := decoder.Decode(&document); err {
		case nil:
		case io.EOF:
			return ok, nil
		default:
			return false, err
		}
		if err := document.verify(); err != nil {
			ok = false
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok")
	}
}

func (d *logDocument) verify() error {
	tree, err := openCheckpoint(d.Checkpoint, d.VKey, d.Witness)
	if err != nil {
		return fmt.Errorf("checkpoint: %v", err)
	}
	for _, entry := range d.Entries {
		hash := tlog.RecordHash(entry.Data)
		if err := tlog.CheckRecord(entry.Proof, tree.N, tree.Hash, entry.Index, hash); err != nil {
			return fmt.Errorf("entry %d: %v", entry.Index, err)
		}
	}
	for _, older := range d.Older {
		if err := tlog.CheckTree(older.Proof, tree.N, tree.Hash, older.Size, older.Root); err != nil {
			return fmt.Errorf("older tree of %d: %v", older.Size, err)
		}
	}
	if len(d.Tiles) == 0 {
		return nil
	}
	return d.verifyTiles(tree)
}

// verifyTiles checks that the tiles are those of the tree, all of them and no
// others, and that they give the same proofs.
func (d *logDocument) verifyTiles(tree tlog.Tree) error {
	tiles := make(tileMap)
	for _, tile := range d.Tiles {
		if _, ok := tiles[tile.Path]; ok {
			return fmt.Errorf("%s: it is there twice", tile.Path)
		}
		tiles[tile.Path] = tile.Data
	}
	hashes := tlog.TileHashReader(tree, tiles)
	expected := 0
	for level := 0; tree.N>>(tileHeight*level) > 0; level++ {
		count := tree.N >> (tileHeight * level)
		for index := int64(0); index < count; index += 1 << tileHeight {
			expected++
			// Reading one hash of a tile verifies the tile.
			if _, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(tileHeight*level, index)}); err != nil {
				return fmt.Errorf("tile %d of level %d: %v", index>>tileHeight, level, err)
			}
		}
	}
	if expected != len(tiles) {
		return fmt.Errorf("there are %d tiles, and the tree has %d", len(tiles), expected)
	}
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("the tiles have the root %v: %v", root, err)
	}
	return d.compareProofs(tree, hashes)
}

func (d *logDocument) compareProofs(tree tlog.Tree, hashes tlog.HashReader) error {
	for _, entry := range d.Entries {
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, entry.Index)})
		if err != nil || leaf[0] != tlog.RecordHash(entry.Data) {
			return fmt.Errorf("entry %d is not in its tile: %v", entry.Index, err)
		}
		proof, err := tlog.ProveRecord(tree.N, entry.Index, hashes)
		if err != nil || fmt.Sprint(proof) != fmt.Sprint(entry.Proof) {
			return fmt.Errorf("entry %d has another proof: %v", entry.Index, err)
		}
	}
	for _, older := range d.Older {
		proof, err := tlog.ProveTree(tree.N, older.Size, hashes)
		if err != nil || fmt.Sprint(proof) != fmt.Sprint(older.Proof) {
			return fmt.Errorf("older tree of %d has another proof: %v", older.Size, err)
		}
		root, err := tlog.TreeHash(older.Size, hashes)
		if err != nil || root != older.Root {
			return fmt.Errorf("older tree of %d has another root: %v", older.Size, err)
		}
	}
	return nil
}

// C2SP tlog-tiles has one height of tiles, and so does not write it in paths.
const tileHeight = 8

// A tileMap has tiles by their paths.
type tileMap map[string][]byte

func (tileMap) Height() int { return tileHeight }

func (m tileMap) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, ok := m[path]
		if !ok {
			return nil, fmt.Errorf("%s is missing", path)
		}
		all = append(all, data)
	}
	return all, nil
}

func (tileMap) SaveTiles([]tlog.Tile, [][]byte) {}
