package app

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/store/privatepg"
	"github.com/csfproxy/csfproxy/store/translog"
)

// StoreURL gives the connection string of the event store of a configuration. A private one has to run, which it does
// while its node does.
func StoreURL(cfg *config.Config) (string, error) {
	if url := cfg.Store.URL.Value; url != "" {
		return url, nil
	}
	return privatepg.RunningURL(filepath.Join(cfg.Node.DataDir, "store"), storeDatabase, "postgres")
}

// LogKeys gives the verifier keys of the log that a configuration names, the present one first; none where the node has
// not made its key yet.
func LogKeys(cfg *config.Config) ([]string, error) {
	var keys []string
	for _, skey := range []string{cfg.Log.Key.Value, cfg.Log.PreviousKey.Value} {
		if skey == "" {
			continue
		}
		k, err := translog.NewLogKey(skey)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k.VerifierKey())
	}
	if cfg.Log.Key.Value != "" {
		return keys, nil
	}
	b, err := os.ReadFile(filepath.Join(cfg.Node.DataDir, "log", "key.pub"))
	if os.IsNotExist(err) {
		return keys, nil
	}
	return append([]string{strings.TrimSpace(string(b))}, keys...), err
}
