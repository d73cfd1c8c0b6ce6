package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// RegisterFile is the name of the register of tokens that GenerateTokens makes in its directory.
const RegisterFile = "api-tokens"

// TokenFiles are the files of generated tokens, all readable by their owner alone.
type TokenFiles struct {
	// Register is what LoadTokens reads; it holds hashes only.
	Register string
	// Plain holds, by role, the file with the token itself. A file may be gone: its token still counts.
	Plain map[Role]string
	// Made says that this call made them.
	Made bool
}

// GenerateTokens makes one token for each role in dir, unless dir has a register already: the register with hashes,
// and a file api-token-ROLE with each token (256 random bits) for the person who sets the product up, to be handed
// out and deleted. Calling it again changes nothing.
func GenerateTokens(dir string) (TokenFiles, error) { return generateTokens(dir, rand.Reader) }

func generateTokens(dir string, random io.Reader) (TokenFiles, error) {
	files := TokenFiles{Register: filepath.Join(dir, RegisterFile), Plain: map[Role]string{}}
	for _, role := range Roles() {
		files.Plain[role] = filepath.Join(dir, "api-token-"+string(role))
	}
	if _, err := os.Stat(files.Register); err == nil {
		return files, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return files, fmt.Errorf("tokens of the API: %w", err)
	}
	var register strings.Builder
	register.WriteString("# role name token; token is sha256: and the token's SHA-256, or the token itself in a file of mode 0600\n")
	for _, role := range Roles() {
		var secret [32]byte
		if _, err := io.ReadFull(random, secret[:]); err != nil {
			return files, fmt.Errorf("tokens of the API: %w", err)
		}
		token := base64.RawURLEncoding.EncodeToString(secret[:])
		hash := sha256.Sum256([]byte(token))
		fmt.Fprintf(&register, "%s first-%s %s%s\n", role, role, hashPrefix, hex.EncodeToString(hash[:]))
		if err := writePrivate(files.Plain[role], token+"\n"); err != nil {
			return files, err
		}
	}
	// The register comes last: while it is missing, a call that was cut short starts over.
	if err := writePrivate(files.Register, register.String()); err != nil {
		return files, err
	}
	files.Made = true
	return files, nil
}

// writePrivate writes a file that only its owner can read, whole or not at all.
func writePrivate(name, text string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".token-*") // mode 0600
	if err != nil {
		return fmt.Errorf("tokens of the API: %w", err)
	}
	defer os.Remove(f.Name()) // nothing is left to remove once it has its name
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("tokens of the API: %w", err)
	}
	return nil
}
