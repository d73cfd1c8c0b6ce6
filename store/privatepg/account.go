package privatepg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that the server programs run as; the zero value is our own.
type account struct {
	name       string
	uid, gid   int
	credential *syscall.Credential // nil: no change of user
}

// serverAccount picks the account: our own unless we are root, whom PostgreSQL refuses.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 != nil || err2 != nil || uid <= 0 {
			continue
		}
		return account{name: name, uid: uid, gid: gid,
			credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, errors.New("private postgres: PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as: create one (useradd -r postgres) or run as another user")
}

// makeDir creates a directory of mode 0700 that belongs to the account, or makes an existing one so.
func (a account) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	if err := a.own(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	return nil
}

// own gives one file or directory to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	if err := os.Lchown(path, a.uid, a.gid); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	return nil
}

// writeFile writes a file of mode 0600 that belongs to the account.
func (a account) writeFile(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("private postgres: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	return a.own(path)
}

// makeParents creates the parents of dir and makes sure that the account can pass through each of them. Directories
// that are missing are made with mode 0711. Ours below the directory for temporary files (os.MkdirTemp and tests make
// them with mode 0700) get the permission to be passed, not to be read; any other that bars the way is named in the error.
func (a account) makeParents(dir string) error {
	if a.credential == nil {
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			return fmt.Errorf("private postgres: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	real, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	tmp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return fmt.Errorf("private postgres: %w", err)
	}
	for parent := real; ; parent = filepath.Dir(parent) {
		st, err := os.Stat(parent)
		if err != nil {
			return fmt.Errorf("private postgres: %w", err)
		}
		if !a.canPass(st) {
			owner := st.Sys().(*syscall.Stat_t).Uid
			if !strings.HasPrefix(parent, tmp+string(filepath.Separator)) || owner != uint32(os.Geteuid()) {
				return fmt.Errorf("private postgres: %s has mode %04o, so that the user %s, as which PostgreSQL runs, cannot pass it to reach %s: chmod o+x %s, or choose another directory",
					parent, st.Mode().Perm(), a.name, dir, parent)
			}
			if err := os.Chmod(parent, st.Mode().Perm()|0o011); err != nil {
				return fmt.Errorf("private postgres: %w", err)
			}
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

func (a account) canPass(st os.FileInfo) bool {
	sys := st.Sys().(*syscall.Stat_t)
	switch {
	case sys.Uid == uint32(a.uid):
		return st.Mode()&0o100 != 0
	case sys.Gid == uint32(a.gid):
		return st.Mode()&0o010 != 0
	}
	return st.Mode()&0o001 != 0
}
