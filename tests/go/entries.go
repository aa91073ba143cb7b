package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// An entryLine is a line of entries.jsonl.
type entryLine struct {
	index int64
	leaf  tlog.Hash
	entry entry
}

// An entry is what the log says of a transition of a run. It has more fields,
// which say nothing that can be verified.
type entry struct {
	N       int64
	Prev    *tlog.Hash
	RunID   string `json:"run_id"`
	Deleted bool
	Events  []struct {
		ID   int64
		Hash tlog.Hash
	}
	EventRange *eventRange `json:"event_range"`
	Follows    *struct {
		RunID   string `json:"run_id"`
		EventID int64  `json:"event_id"`
	}
}

// An eventRange has the root of the tree over the hashes of its events.
type eventRange struct {
	First int64
	Last  int64
	Root  tlog.Hash
}

func (b *bundle) entryLines() []entryLine {
	var all []entryLine
	for number, line := range lines(b.files["entries.jsonl"]) {
		parsed, err := parseEntryLine(line)
		if err != nil {
			b.fail("entries.jsonl: line %d: %v", number+1, err)
			continue
		}
		all = append(all, parsed)
	}
	b.checkOrder(all)
	return all
}

// parseEntryLine takes an entry's exact bytes, which are hashed, out of its
// line.
func parseEntryLine(line []byte) (entryLine, error) {
	begin, middle := []byte(`{"entry":`), []byte(`,"index":`)
	at := bytes.LastIndex(line, middle)
	if !bytes.HasPrefix(line, begin) || at < len(begin) || !bytes.HasSuffix(line, []byte("}")) {
		return entryLine{}, fmt.Errorf("not an entry and its index")
	}
	data := line[len(begin):at]
	index, err := strconv.ParseUint(string(line[at+len(middle):len(line)-1]), 10, 50)
	if err != nil {
		return entryLine{}, err
	}
	parsed := entryLine{index: int64(index), leaf: tlog.RecordHash(data)}
	return parsed, json.Unmarshal(data, &parsed.entry)
}

// checkOrder verifies that entries are in the log's order, and that nothing is
// left out of a part of the log.
func (b *bundle) checkOrder(lines []entryLine) {
	if len(lines) == 0 {
		b.fail("entries.jsonl: there is no entry")
		return
	}
	for at, line := range lines[1:] {
		if before := lines[at].index; line.index <= before {
			b.fail("entries.jsonl: index %d comes after index %d", line.index, before)
			return
		}
	}
	first, next := lines[0].index, lines[len(lines)-1].index+1
	switch {
	case b.scope.Kind != "range":
	case first != b.scope.From || next != b.scope.To:
		b.fail("entries.jsonl: it is about indexes %d to %d, and has %d to %d", b.scope.From, b.scope.To, first, next)
	case int64(len(lines)) != next-first:
		b.fail("entries.jsonl: %d entries are not there", next-first-int64(len(lines)))
	}
}

// A chain has the entries of a run, or those that belong to no run.
type chain struct {
	id      string
	n       int64
	end     *tlog.Hash
	isWhole bool
	deleted bool

	// The events before first are those of another run, which this one was
	// reset from. It is nil if its entries are not in the bundle.
	base   *chain
	first  int64
	next   int64
	hashes map[int64]tlog.Hash
	ranges []eventRange
}

// checkChains gives the runs, in the order of their first entries.
func (b *bundle) checkChains(lines []entryLine) []*chain {
	var runs []*chain
	chains := make(map[string]*chain)
	for _, line := range lines {
		entry := line.entry
		c := chains[entry.RunID]
		if c == nil {
			c = begin(entry, chains)
			chains[c.id] = c
			if c.id != "" {
				runs = append(runs, c)
			}
		}
		if problem := c.link(line, b.needsAll(c)); problem != "" {
			b.fail("entries.jsonl: index %d, run %q: %s", line.index, c.id, problem)
		}
		if problem := c.list(entry); problem != "" {
			b.fail("entries.jsonl: index %d, run %q: %s", line.index, c.id, problem)
		}
	}
	return runs
}

// begin makes the chain of a first entry.
func begin(first entry, chains map[string]*chain) *chain {
	c := &chain{id: first.RunID, isWhole: true, first: 1, next: 1, hashes: make(map[int64]tlog.Hash)}
	if follows := first.Follows; follows != nil {
		c.base = chains[follows.RunID]
		c.first, c.next = follows.EventID+1, follows.EventID+1
	}
	return c
}

// needsAll says whether an entry of a chain may not be missing before another
// one.
func (b *bundle) needsAll(c *chain) bool {
	switch b.scope.Kind {
	case "session":
		return c.id != ""
	case "range":
		// It may have begun before this part of the log.
		return c.n > 0
	}
	return false
}

// link verifies the number of the next entry and the hash that it holds of
// the one before.
func (c *chain) link(line entryLine, needsAll bool) string {
	n, expected, end := line.entry.N, c.n+1, c.end
	if n < expected {
		return fmt.Sprintf("entry %d comes after entry %d", n, c.n)
	}
	c.n, c.end = n, &line.leaf
	c.deleted = c.deleted || line.entry.Deleted
	switch prev := line.entry.Prev; {
	case n > expected:
		c.isWhole = false
		if needsAll {
			return fmt.Sprintf("entry %d is not there", expected)
		}
	case (prev == nil) != (end == nil) || prev != nil && *prev != *end:
		return fmt.Sprintf("entry %d does not hold the hash of the one before", n)
	}
	return ""
}

// list keeps the hashes of events.
func (c *chain) list(entry entry) string {
	for _, event := range entry.Events {
		if c.isWhole && event.ID != c.next {
			return fmt.Sprintf("it lists event %d, and %d is expected", event.ID, c.next)
		}
		c.hashes[event.ID] = event.Hash
		c.next = event.ID + 1
	}
	if of := entry.EventRange; of != nil {
		if c.isWhole && of.First != c.next || of.Last < of.First {
			return fmt.Sprintf("it lists events %d to %d, and %d is expected", of.First, of.Last, c.next)
		}
		c.ranges = append(c.ranges, *of)
		c.next = of.Last + 1
	}
	return ""
}
