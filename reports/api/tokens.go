package api

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
)

const (
	// minTokenBytes is the least length of a token that the file holds in plain form.
	minTokenBytes = 12
	// strongTokenBytes is the length from which guessing is hopeless, so that the holder is not locked out while
	// somebody guesses from the same address.
	strongTokenBytes = 32
	// maxTokenBytes bounds what is hashed for a stranger.
	maxTokenBytes = 512
	maxTokens     = 1000
	hashPrefix    = "sha256:"
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Tokens is the register of bearer tokens: a file with one "role name token" a line, where token is sha256: and the
// hexadecimal SHA-256 of the token, or the token itself when only the file's owner can read it. Empty lines and
// lines that begin with # do not count. The methods may be called from many goroutines.
type Tokens struct {
	file    string
	entries atomic.Pointer[[]tokenEntry]
	// selfTest is the reader of self-tests, nil where there is none.
	selfTest atomic.Pointer[tokenEntry]
}

type tokenEntry struct {
	hash   [sha256.Size]byte
	person Person
	strong bool
}

// LoadTokens reads the file. Its errors name file, line and what to do, and never a token.
func LoadTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the file again; on an error the tokens in force stay.
func (t *Tokens) Reload() error {
	f, err := os.Open(t.file)
	if err != nil {
		return fmt.Errorf("api.tokens: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("api.tokens: %w", err)
	}
	entries, err := parseTokens(t.file, f, info.Mode())
	if err != nil {
		return err
	}
	t.entries.Store(&entries)
	return nil
}

// Lookup gives the holder of the token. It compares with every entry, whatever matches, so that its time says
// nothing about which entry was close. strong is false for a short token that the file holds in plain form.
func (t *Tokens) Lookup(token string) (p Person, strong, ok bool) {
	if len(token) == 0 || len(token) > maxTokenBytes {
		return Person{}, false, false
	}
	hash := sha256.Sum256([]byte(token))
	found := -1
	var entries []tokenEntry
	if list := t.entries.Load(); list != nil {
		entries = *list
	}
	if own := t.selfTest.Load(); own != nil {
		entries = append(entries[:len(entries):len(entries)], *own)
	}
	for i := range entries {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], entries[i].hash[:]), i, found)
	}
	if found < 0 {
		return Person{}, false, false
	}
	return entries[found].person, entries[found].strong, true
}

func parseTokens(file string, f fs.File, mode fs.FileMode) ([]tokenEntry, error) {
	fail := func(line int, format string, args ...any) ([]tokenEntry, error) {
		return nil, fmt.Errorf("%s:%d: api.tokens: %s", file, line, fmt.Sprintf(format, args...))
	}
	if mode.Perm()&0o022 != 0 {
		return fail(1, "others may write to the file (mode %#o): chmod 600 it", mode.Perm())
	}
	var entries []tokenEntry
	seen := map[[sha256.Size]byte]int{}
	scan := bufio.NewScanner(f)
	for line := 1; scan.Scan(); line++ {
		text := strings.TrimSpace(scan.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fields := strings.Fields(text)
		if len(fields) != 3 {
			return fail(line, "want three words: role name token")
		}
		role, name, token := Role(fields[0]), fields[1], fields[2]
		if !role.Valid() {
			return fail(line, "unknown role: use auditor, operator, approver or admin")
		}
		if !namePattern.MatchString(name) {
			return fail(line, "the name takes letters, digits and . _ @ - and at most 64 of them")
		}
		entry := tokenEntry{person: Person{Name: name, Role: role}}
		if digest, hashed := strings.CutPrefix(token, hashPrefix); hashed {
			sum, err := hex.DecodeString(digest)
			if err != nil || len(sum) != sha256.Size {
				return fail(line, "after sha256: come 64 hexadecimal digits")
			}
			entry.hash, entry.strong = [sha256.Size]byte(sum), true
		} else {
			if mode.Perm()&0o077 != 0 {
				return fail(line, "a token in plain form needs a file that only its owner can read (mode %#o): chmod 600 it, or write sha256: and the token's SHA-256", mode.Perm())
			}
			if len(token) < minTokenBytes || len(token) > maxTokenBytes {
				return fail(line, "a token has between %d and %d bytes", minTokenBytes, maxTokenBytes)
			}
			entry.hash, entry.strong = sha256.Sum256([]byte(token)), len(token) >= strongTokenBytes
		}
		if first, ok := seen[entry.hash]; ok {
			return fail(line, "the token of line %d again: give each person their own", first)
		}
		seen[entry.hash] = line
		if entries = append(entries, entry); len(entries) > maxTokens {
			return fail(line, "more than %d tokens", maxTokens)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("%s: api.tokens: %w", file, err)
	}
	if len(entries) == 0 {
		return fail(1, "no token in the file: write \"role name token\" lines, or leave api.tokens out to have them made")
	}
	return entries, nil
}
