package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// secretReader resolves references to files and to the environment.
type secretReader struct {
	dir      string // that relative paths start from: the configuration file's
	readFile func(string) ([]byte, error)
	stat     func(string) (fs.FileInfo, error)
	env      func(string) (string, bool)
}

// path makes a path of the file independent of the working directory.
func (r secretReader) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.dir, p)
}

// queryWord as a verifier means that the verifier is read from the upstream.
const queryWord = "query"

// secret reads file:PATH, env:NAME, the word query for a verifier, or a plain value. A file's final line end
// is no part of the secret. The value appears in no message.
func (d *decoder) secret(n *yaml.Node, s *Secret, key string) {
	name, isEnv := strings.CutPrefix(n.Value, "env:")
	path, isFile := strings.CutPrefix(n.Value, "file:")
	switch {
	case isEnv:
		v, ok := d.secrets.env(name)
		if !ok || v == "" {
			d.fail(key, "the environment variable "+name+" is not set", "set it where the process is started, or use file:PATH")
			return
		}
		*s = Secret{Ref: n.Value, Value: v}
	case isFile:
		path = d.secrets.path(path)
		data, err := d.secrets.readFile(path)
		if err != nil {
			d.fail(key, "cannot read "+path+": "+reason(err), "create the file, correct the path or permit this user to read it")
			return
		}
		v := strings.TrimRight(string(data), "\r\n")
		if v == "" {
			d.fail(key, "the file "+path+" is empty", "write the secret into it")
			return
		}
		d.exposed(key, path)
		*s = Secret{Ref: n.Value, Value: v}
	case n.Value == "":
		d.fail(key, "the value is empty", "give file:PATH or env:NAME, or take the key out")
	case n.Value == queryWord && strings.HasSuffix(key, ".auth.verifier"):
		*s = Secret{Ref: queryWord, Value: queryWord}
	default:
		*s = Secret{Value: n.Value}
		if !strings.HasSuffix(key, "url") || strings.Contains(n.Value, "@") || strings.Contains(n.Value, "password=") {
			d.note(key, "a secret stands in the configuration file itself: use file:PATH or env:NAME")
		}
	}
}

// exposed notes a file of secrets that every user of the machine can read.
func (d *decoder) exposed(key, path string) { noteExposed(d.source, d.secrets, key, path) }

func noteExposed(s *source, r secretReader, key, path string) {
	if info, err := r.stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		s.note(key, "every user of this machine can read "+path+": chmod 600")
	}
}

// reason gives an error's cause without the path that the message names already.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}
