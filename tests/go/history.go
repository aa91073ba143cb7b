package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// A payloadLine says where payloads are in an event.
type payloadLine struct {
	EventID int64 `json:"event_id"`
	Spans   []span
}

// A span is a payload. It has the digest in place of the salt if it is
// erased.
type span struct {
	Offset uint32
	Length uint32
	Salt   *tlog.Hash
	Digest *tlog.Hash
}

// checkHistories verifies all histories, and counts their events.
func (b *bundle) checkHistories(runs []*chain) int {
	count := 0
	known := make(map[string]bool)
	for _, run := range runs {
		name := "history/" + run.id
		history, ok := b.files[name+".binpb"]
		payloads, hasPayloads := b.files[name+".payloads.jsonl"]
		known[name+".binpb"], known[name+".payloads.jsonl"] = true, true
		if !ok && !hasPayloads {
			if b.scope.Kind == "session" && run.isWhole && !run.deleted {
				b.fail("%s.binpb: it is missing, and the run is not deleted", name)
			}
			continue
		}
		if !run.isWhole || run.deleted {
			b.fail("%s.binpb: not all entries of the run are there, or it is deleted", name)
			continue
		}
		h := historyCheck{run: run}
		if err := h.check(history, payloads); err != nil {
			b.fail("%s.binpb: %v", name, err)
		}
		count += int(h.events)
		b.unchecked += h.unchecked
	}
	for _, name := range b.names("history/", "") {
		if !known[name] {
			b.fail("%s: no entry is about it", name)
		}
	}
	return count
}

// A historyCheck compares the history of a run with its entries.
type historyCheck struct {
	run       *chain
	events    int64
	unchecked int

	// inRange has the hashes of a range that is not at its end.
	inRange []tlog.Hash
}

func (h *historyCheck) check(history, payloads []byte) error {
	spans, err := parsePayloads(payloads)
	if err != nil {
		return err
	}
	for len(history) > 0 {
		var event []byte
		if event, history, err = nextEvent(history); err != nil {
			return fmt.Errorf("after event %d: %v", h.events, err)
		}
		id, err := eventID(event)
		if err != nil || id != h.events+1 {
			return fmt.Errorf("event %d is expected, and %d is there: %v", h.events+1, id, err)
		}
		h.events++
		hash, err := eventHash(event, spans[id])
		if err == nil {
			err = h.compare(id, hash)
		}
		if err != nil {
			return fmt.Errorf("event %d: %v", id, err)
		}
		delete(spans, id)
	}
	if h.events != h.run.next-1 {
		return fmt.Errorf("it ends after event %d, and the entries list %d", h.events, h.run.next-1)
	}
	if len(spans) > 0 {
		return errors.New("there are payloads of events that are not there")
	}
	return nil
}

func (h *historyCheck) compare(id int64, hash tlog.Hash) error {
	owner := h.run
	for owner != nil && id < owner.first {
		owner = owner.base
	}
	if owner == nil || !owner.isWhole {
		h.unchecked++
		return nil
	}
	if listed, ok := owner.hashes[id]; ok {
		if listed != hash {
			return errors.New("its hash is not the one in its entry")
		}
		return nil
	}
	if owner != h.run {
		// Only a root is known of it, and not all of the events may be here.
		h.unchecked++
		return nil
	}
	for _, of := range owner.ranges {
		if of.First <= id && id <= of.Last {
			return h.compareRange(of, id, hash)
		}
	}
	return errors.New("it is in no entry")
}

// compareRange compares the root when the last event is there.
func (h *historyCheck) compareRange(of eventRange, id int64, hash tlog.Hash) error {
	h.inRange = append(h.inRange, hash)
	if id < of.Last {
		return nil
	}
	var root rootBuilder
	for index, hash := range h.inRange {
		root.add(treeNode{Index: int64(index), Hash: tlog.RecordHash(hash[:])})
	}
	if root.hash() != of.Root {
		return fmt.Errorf("it, or one since event %d, is not what the root in their entry is of", of.First)
	}
	// A run that was reset from this one has some of them.
	for index, hash := range h.inRange {
		h.run.hashes[of.First+int64(index)] = hash
	}
	h.inRange = nil
	return nil
}

func parsePayloads(text []byte) (map[int64][]span, error) {
	spans := make(map[int64][]span)
	for number, line := range lines(text) {
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		var of payloadLine
		if err := decoder.Decode(&of); err != nil {
			return nil, fmt.Errorf("line %d of the payloads: %v", number+1, err)
		}
		if _, ok := spans[of.EventID]; ok {
			return nil, fmt.Errorf("line %d of the payloads: event %d is there twice", number+1, of.EventID)
		}
		spans[of.EventID] = of.Spans
	}
	return spans, nil
}

// nextEvent takes the first event off a History: field 1, length-delimited.
func nextEvent(history []byte) (event, rest []byte, err error) {
	if history[0] != 1<<3|2 {
		return nil, nil, errors.New("not an event of a History")
	}
	length, size := binary.Uvarint(history[1:])
	rest = history[1:]
	if size <= 0 || length > uint64(len(rest)-size) {
		return nil, nil, errors.New("the History ends within an event")
	}
	rest = rest[size:]
	return rest[:length], rest[length:], nil
}

// eventID finds field 1 of a HistoryEvent.
func eventID(event []byte) (int64, error) {
	malformed := errors.New("malformed")
	id := int64(0)
	for at := 0; at < len(event); {
		tag, size := binary.Uvarint(event[at:])
		if size <= 0 {
			return 0, malformed
		}
		at += size
		skip := uint64(0)
		switch tag & 7 {
		case 0, 2:
			value, size := binary.Uvarint(event[at:])
			if size <= 0 {
				return 0, malformed
			}
			at += size
			if tag == 1<<3 {
				id = int64(value)
			}
			if tag&7 == 2 {
				skip = value
			}
		case 1:
			skip = 8
		case 5:
			skip = 4
		default:
			return 0, malformed
		}
		if skip > uint64(len(event)-at) {
			return 0, malformed
		}
		at += int(skip)
	}
	return id, nil
}

// eventHash hashes an event with digests in place of payloads.
func eventHash(event []byte, spans []span) (tlog.Hash, error) {
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(spans)))
	var rest []byte
	end := uint64(0)
	for _, span := range spans {
		from, to := uint64(span.Offset), uint64(span.Offset)+uint64(span.Length)
		if from < end || to > uint64(len(event)) {
			return tlog.Hash{}, errors.New("its payloads are not within it, or not in order")
		}
		digest, err := span.digest(event[from:to])
		if err != nil {
			return tlog.Hash{}, err
		}
		head = binary.BigEndian.AppendUint32(head, span.Offset)
		head = binary.BigEndian.AppendUint32(head, span.Length)
		head = append(head, digest[:]...)
		rest = append(rest, event[end:from]...)
		end = to
	}
	return sha256.Sum256(append(append(head, rest...), event[end:]...)), nil
}

func (s span) digest(payload []byte) (tlog.Hash, error) {
	switch {
	case s.Salt != nil && s.Digest == nil:
		return sha256.Sum256(append(s.Salt[:], payload...)), nil
	case s.Salt == nil && s.Digest != nil:
		// The hash does not depend on what is there: nothing may be.
		if len(bytes.Trim(payload, "\x00")) > 0 {
			return tlog.Hash{}, errors.New("there is something where a payload was erased")
		}
		return *s.Digest, nil
	}
	return tlog.Hash{}, errors.New("a payload has a salt or a digest")
}
