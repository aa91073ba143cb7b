// Verifies what Steadfast signs and proves, with the packages that Go's own
// checksum database is verified with, and with none of Steadfast's code.
//
//	go run . log < DOCUMENTS
//	go run . bundle KEY BUNDLE
//
// The first prints a line for each document: "ok", or what does not verify.
// The second verifies an evidence bundle as its README.txt says: it prints
// "ok: N entries, M events", or a line for each thing that does not verify.
// Both end with status 1 if anything does not.
//
// It needs golang.org/x/mod, for example from Debian's package:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go run . log
package main

import (
	"fmt"
	"os"
)

// A mode verifies one kind of file. It reports whether all of it verified.
type mode func(args []string) (bool, error)

var modes = map[string]mode{
	"bundle": bundleMode,
	"log":    logMode,
}

func main() {
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: go run . log < DOCUMENTS, or go run . bundle KEY BUNDLE")
		os.Exit(2)
	}
	ok, err := modes[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}
