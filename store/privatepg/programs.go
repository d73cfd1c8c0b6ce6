package privatepg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// ErrNoPrograms is wrapped by the error of a machine without PostgreSQL's server programs.
var ErrNoPrograms = errors.New("PostgreSQL's server programs were not found")

// Programs names the directory of PostgreSQL's server programs, and with it initdb, postgres, pg_basebackup, psql, …
// It is the one of $CSFPROXY_PG_BIN if that is set, else the first that has initdb and postgres: the directories of
// PATH, then the places where Debian, Red Hat, Homebrew and Postgres.app put them, newest version first. The error
// wraps ErrNoPrograms and says how to install them.
func Programs() (string, error) {
	dirs, err := programDirs()
	if err != nil {
		return "", err
	}
	return dirs[0], nil
}

// programDirs lists every directory with the server programs, in the order of preference; it is not empty without an error.
func programDirs() ([]string, error) {
	if dir := os.Getenv("CSFPROXY_PG_BIN"); dir != "" {
		if !hasPrograms(dir) {
			return nil, fmt.Errorf("%w in %s, which CSFPROXY_PG_BIN names: it has no initdb and postgres", ErrNoPrograms, dir)
		}
		return []string{dir}, nil
	}
	var found []string
	add := func(dir string) {
		if hasPrograms(dir) && !slices.Contains(found, dir) {
			found = append(found, dir)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if !filepath.IsAbs(dir) {
			continue // a relative entry would run whatever lies in the working directory
		}
		// A link such as /usr/local/bin/postgres stands for the directory that the other programs are in.
		if target, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
			add(filepath.Dir(target))
		}
		add(dir)
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/usr/local/pgsql/bin",
	} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("private postgres: %w", err)
		}
		slices.SortFunc(dirs, func(a, b string) int { return versionInPath(b) - versionInPath(a) })
		for _, dir := range dirs {
			add(dir)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w (looked in CSFPROXY_PG_BIN, PATH, /usr/lib/postgresql/*/bin and Homebrew): %s",
			ErrNoPrograms, installHint(runtime.GOOS))
	}
	return found, nil
}

func installHint(goos string) string {
	if goos == "darwin" {
		return "install them with: brew install postgresql@17"
	}
	return "install them with: apt-get install postgresql"
}

func hasPrograms(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// versionInPath reads the major version out of a directory such as /usr/lib/postgresql/15/bin; -1 when it has none.
func versionInPath(dir string) int {
	parent := filepath.Base(filepath.Dir(dir))
	i := strings.LastIndexAny(parent, "@-")
	n, err := strconv.Atoi(parent[i+1:])
	if err != nil {
		return -1
	}
	return n
}

// programsFor picks the programs for a cluster: of the same major version as its data if it exists, else the preferred ones.
func programsFor(ctx context.Context, dataDir string) (string, error) {
	dirs, err := programDirs()
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return dirs[0], nil
	}
	if err != nil {
		return "", fmt.Errorf("private postgres: %w", err)
	}
	want := strings.TrimSpace(string(raw))
	for _, dir := range dirs {
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err == nil && majorVersion(string(out)) == want {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w for version %s, which made %s (found %s): install that version, or move the directory away to start an empty one",
		ErrNoPrograms, want, dataDir, strings.Join(dirs, ", "))
}

// majorVersion reads "15" out of "postgres (PostgreSQL) 15.14 (Debian 15.14-1)".
func majorVersion(out string) string {
	_, rest, ok := strings.Cut(out, ") ")
	if !ok {
		return ""
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	return rest[:end]
}
