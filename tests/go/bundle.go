package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A bundle is an evidence bundle that is being verified. The README.txt in
// each bundle says how; every step is made here, and goes on after a problem
// in another one, so that each is seen.
type bundle struct {
	files    map[string][]byte
	keys     []*logKey
	scope    scope
	problems []string

	// unchecked counts events whose entries are not in the bundle.
	unchecked int
}

// A scope is what manifest.json says the bundle is about.
type scope struct {
	Kind string
	From int64
	To   int64
}

func bundleMode(args []string) (bool, error) {
	if len(args) != 2 {
		return false, errors.New("usage: go run . bundle KEY BUNDLE")
	}
	key, err := newLogKey(args[0])
	if err != nil {
		return false, fmt.Errorf("KEY: %v", err)
	}
	data, err := os.ReadFile(args[1])
	if err != nil {
		return false, err
	}
	b := &bundle{keys: []*logKey{key}}
	entries, events := b.verify(data)
	for _, problem := range b.problems {
		fmt.Println(strings.ReplaceAll(problem, "\n", " "))
	}
	if len(b.problems) > 0 {
		return false, nil
	}
	fmt.Printf("ok: %d entries, %d events", entries, events)
	if b.unchecked > 0 {
		fmt.Printf(" (%d not checked: their entries are not in the bundle)", b.unchecked)
	}
	fmt.Println()
	return true, nil
}

func (b *bundle) fail(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// verify counts the entries and the events of the bundle.
func (b *bundle) verify(data []byte) (entries, events int) {
	if err := b.unzip(data); err != nil {
		b.fail("the ZIP: %v", err)
		return 0, 0
	}
	b.followRotations()
	b.readScope()
	tree, err := b.checkpoint()
	if err != nil {
		b.fail("checkpoint: %v", err)
	}
	lines := b.entryLines()
	if err == nil {
		b.checkTree(tree, lines)
	}
	events = b.checkHistories(b.checkChains(lines))
	b.checkStatement()
	return len(lines), events
}

func (b *bundle) unzip(data []byte) error {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	b.files = make(map[string][]byte)
	for _, file := range archive.File {
		// Another program might take the other one.
		if _, ok := b.files[file.Name]; ok {
			return fmt.Errorf("%s is there twice", file.Name)
		}
		reader, err := file.Open()
		if err != nil {
			return fmt.Errorf("%s: %v", file.Name, err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return fmt.Errorf("%s: %v", file.Name, err)
		}
		b.files[file.Name] = content
	}
	return nil
}

// names are those of the files that begin so, in order.
func (b *bundle) names(prefix, suffix string) []string {
	var names []string
	for name := range b.files {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// readScope reads what decides which entries may be left out.
func (b *bundle) readScope() {
	var manifest struct{ Scope scope }
	if err := json.Unmarshal(b.files["manifest.json"], &manifest); err != nil {
		b.fail("manifest.json: %v", err)
		return
	}
	switch b.scope = manifest.Scope; b.scope.Kind {
	case "session", "principal", "range":
	default:
		b.fail("manifest.json: it is about %q", b.scope.Kind)
	}
}

func (b *bundle) checkpoint() (tlog.Tree, error) {
	var verifiers []note.Verifier
	for _, key := range b.keys {
		verifiers = append(verifiers, key.Verifier)
	}
	opened, err := note.Open(b.files["checkpoint"], note.VerifierList(verifiers...))
	if err != nil {
		return tlog.Tree{}, err
	}
	// All keys have the name of the log.
	return parseCheckpoint(opened.Text, b.keys[0].Name())
}

// checkTree makes the root of entries and nodes: together they leave no gap.
func (b *bundle) checkTree(tree tlog.Tree, entries []entryLine) {
	nodes, err := parseNodes(b.files["tree.jsonl"])
	if err != nil {
		b.fail("tree.jsonl: %v", err)
		return
	}
	var root rootBuilder
	for _, entry := range entries {
		if entry.index < root.size {
			b.fail("tree.jsonl: what is before index %d covers it too", entry.index)
			return
		}
		if entry.index >= tree.N {
			b.fail("entries.jsonl: index %d, and the checkpoint is of %d entries", entry.index, tree.N)
			return
		}
		nodes = root.fill(entry.index, nodes)
		if !root.add(treeNode{Index: entry.index, Hash: entry.leaf}) {
			b.fail("tree.jsonl: entries and nodes leave a gap or overlap at index %d", root.size)
			return
		}
	}
	nodes = root.fill(tree.N, nodes)
	switch {
	case root.size != tree.N:
		b.fail("tree.jsonl: entries and nodes leave a gap or overlap at index %d", root.size)
	case len(nodes) > 0:
		b.fail("tree.jsonl: it goes on after the last node")
	case root.hash() != tree.Hash:
		b.fail("the root is %v, and the checkpoint's is %v", root.hash(), tree.Hash)
	}
}

// A treeNode is the hash of the entries from Index << Level to
// (Index + 1) << Level.
type treeNode struct {
	Level int
	Index int64
	Hash  tlog.Hash
}

func parseNodes(text []byte) ([]treeNode, error) {
	var nodes []treeNode
	for number, line := range lines(text) {
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		var node treeNode
		if err := decoder.Decode(&node); err != nil {
			return nil, fmt.Errorf("line %d: %v", number+1, err)
		}
		// No log is higher. It keeps the shifts below in range.
		if node.Level < 0 || node.Level > 50 || node.Index < 0 || node.Index > 1<<50>>node.Level {
			return nil, fmt.Errorf("line %d: no such node", number+1)
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// lines are what newlines end.
func lines(text []byte) [][]byte {
	all := bytes.Split(text, []byte("\n"))
	if last := len(all) - 1; len(all[last]) == 0 {
		return all[:last]
	}
	return all
}

// A rootBuilder makes the root of a tree from complete subtrees, from left to
// right. Those that wait for a neighbour are on the stack.
type rootBuilder struct {
	size  int64
	stack []treeNode
}

// add reports whether the node begins where the tree ends.
func (r *rootBuilder) add(node treeNode) bool {
	if node.Index<<node.Level != r.size {
		return false
	}
	r.size = (node.Index + 1) << node.Level
	for len(r.stack) > 0 && r.stack[len(r.stack)-1].Level == node.Level {
		left := r.stack[len(r.stack)-1]
		r.stack = r.stack[:len(r.stack)-1]
		node = treeNode{node.Level + 1, left.Index >> 1, tlog.NodeHash(left.Hash, node.Hash)}
	}
	r.stack = append(r.stack, node)
	return true
}

// fill adds nodes up to an index, and gives those that are left.
func (r *rootBuilder) fill(to int64, nodes []treeNode) []treeNode {
	for len(nodes) > 0 && r.size < to && r.add(nodes[0]) {
		nodes = nodes[1:]
	}
	return nodes
}

// hash combines what is left: the largest complete trees first.
func (r *rootBuilder) hash() tlog.Hash {
	if len(r.stack) == 0 {
		return tlog.Hash{}
	}
	root := r.stack[len(r.stack)-1].Hash
	for at := len(r.stack) - 2; at >= 0; at-- {
		root = tlog.NodeHash(r.stack[at].Hash, root)
	}
	return root
}
