package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A logKey is a public key of the log.
type logKey struct {
	note.Verifier

	// text is how entries write it.
	text string

	// public is what package note does not give out, for signatures that are
	// not those of notes.
	public ed25519.PublicKey
}

func newLogKey(text string) (*logKey, error) {
	verifier, err := note.NewVerifier(text)
	if err != nil {
		return nil, err
	}
	// The base64 may have a plus itself.
	key, err := base64.StdEncoding.DecodeString(strings.SplitN(text, "+", 3)[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return nil, errors.New("not an Ed25519 key")
	}
	text = fmt.Sprintf("%s+%08x+%s", verifier.Name(), verifier.KeyHash(), base64.StdEncoding.EncodeToString(key))
	return &logKey{verifier, text, key[1:]}, nil
}

func (b *bundle) key(text string) *logKey {
	for _, key := range b.keys {
		if key.text == text {
			return key
		}
	}
	return nil
}

// followRotations adds the keys that took the place of the trusted one.
func (b *bundle) followRotations() {
	names := b.names("rotations/", ".tlog-proof")
	// 10 comes after 9.
	sort.SliceStable(names, func(i, j int) bool { return len(names[i]) < len(names[j]) })
	for _, name := range names {
		key, err := b.rotation(string(b.files[name]))
		if err != nil {
			b.fail("%s: %v", name, err)
		} else if key != nil && b.key(key.text) == nil {
			b.keys = append(b.keys, key)
		}
	}
}

// rotation gives the key that an entry names, if it takes the place of one
// that is trusted. A rotation from before the trusted key proves nothing.
func (b *bundle) rotation(text string) (*logKey, error) {
	head, signed, ok := strings.Cut(text, "\n\n")
	rows := strings.Split(head, "\n")
	if !ok || len(rows) < 3 || rows[0] != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("not a proof with an entry")
	}
	extra, ok := cutPrefix(rows[1], "extra ")
	entry, err := base64.StdEncoding.DecodeString(extra)
	if !ok || err != nil {
		return nil, errors.New("it has no entry")
	}
	from, to, err := namedKeys(entry)
	if err != nil || b.key(from) == nil {
		return nil, err
	}
	old := b.key(from)
	next, err := newLogKey(to)
	if err != nil || next.Name() != old.Name() {
		return nil, fmt.Errorf("it names no key of the log: %v", err)
	}
	return next, checkInclusion(rows[2:], entry, signed, old, next)
}

// namedKeys are those of an entry that says that the key changed.
func namedKeys(data []byte) (from, to string, err error) {
	var entry struct{ Note struct{ What, Detail string } }
	if err := json.Unmarshal(data, &entry); err != nil {
		return "", "", fmt.Errorf("its entry: %v", err)
	}
	from, to, ok := strings.Cut(entry.Note.Detail, " -> ")
	if !ok || entry.Note.What != "evidence/key-changed" {
		return "", "", errors.New("its entry does not change a key")
	}
	return from, to, nil
}

// checkInclusion verifies that an entry is in a tree that both keys signed.
// Anybody can add a signature of their own: it is the old key that says that
// the log names the new one.
func checkInclusion(rows []string, entry []byte, signed string, old, next *logKey) error {
	opened, err := note.Open([]byte(signed), note.VerifierList(old.Verifier, next.Verifier))
	if err != nil {
		return err
	}
	if len(opened.Sigs) != 2 {
		return errors.New("one of the keys did not sign it")
	}
	tree, err := parseCheckpoint(opened.Text, old.Name())
	if err != nil {
		return err
	}
	var index int64
	if _, err := fmt.Sscanf(rows[0], "index %d", &index); err != nil || index < 0 || index >= tree.N {
		return fmt.Errorf("it has no index of the tree: %v", err)
	}
	var proof tlog.RecordProof
	for _, row := range rows[1:] {
		hash, err := tlog.ParseHash(row)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}

// cutPrefix is strings.CutPrefix, which Go has since 1.20.
func cutPrefix(text, prefix string) (string, bool) {
	return strings.TrimPrefix(text, prefix), strings.HasPrefix(text, prefix)
}

const (
	statementFile = "statement.dsse.json"
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://steadfast.dev/evidence-bundle/v1"
)

// checkStatement verifies who signed the statement, and that it is about all
// other files as they are.
func (b *bundle) checkStatement() {
	payload, err := b.openStatement()
	if err != nil {
		b.fail("%s: %v", statementFile, err)
		return
	}
	var statement struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct {
			Name   string
			Digest struct{ SHA256 string }
		}
	}
	err = json.Unmarshal(payload, &statement)
	if err != nil || statement.Type != statementType || statement.PredicateType != predicateType {
		b.fail("%s: it states something else: %v", statementFile, err)
		return
	}
	stated := make(map[string]bool)
	for _, subject := range statement.Subject {
		stated[subject.Name] = true
		content, ok := b.files[subject.Name]
		sum := sha256.Sum256(content)
		if !ok {
			b.fail("%s: it is missing, and was signed", subject.Name)
		} else if hex.EncodeToString(sum[:]) != subject.Digest.SHA256 {
			b.fail("%s: it is not the file that was signed", subject.Name)
		}
	}
	for _, name := range b.names("", "") {
		if !stated[name] && name != statementFile {
			b.fail("%s: it was not signed", name)
		}
	}
}

// openStatement gives the payload of a DSSE envelope that one of the log's
// keys signed.
func (b *bundle) openStatement() ([]byte, error) {
	var envelope struct {
		Payload     []byte
		PayloadType string
		Signatures  []struct {
			KeyID string
			Sig   []byte
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(b.files[statementFile]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&envelope); err != nil {
		return nil, err
	}
	if envelope.PayloadType != payloadType {
		return nil, fmt.Errorf("it has a payload of type %q", envelope.PayloadType)
	}
	encoded := fmt.Sprintf("DSSEv1 %d %s %d %s",
		len(payloadType), payloadType, len(envelope.Payload), envelope.Payload)
	for _, signature := range envelope.Signatures {
		for _, key := range b.keys {
			if ed25519.Verify(key.public, []byte(encoded), signature.Sig) {
				return envelope.Payload, nil
			}
		}
	}
	return nil, errors.New("no key of the log signed it")
}
