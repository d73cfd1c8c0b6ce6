package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"
)

// third_party holds the published files of htmx and uPlot as they are, each beside its licence. It is not called
// vendor: the go command leaves directories of that name out of modules.
//
//go:embed pages/*.html static third_party
var files embed.FS

// compressFrom is the size from which an answer is worth compressing.
const compressFrom = 1 << 10

// asset is one file of the dashboard, in memory in both forms.
type asset struct {
	kind    string
	plain   []byte
	gzipped []byte
	version string
}

// assets are the files that pages load, by name.
type assets map[string]asset

func loadAssets() (assets, error) {
	all := assets{}
	for _, file := range []string{"static/style.css", "static/app.js", "static/charts.js", "static/icon.svg",
		"third_party/htmx/htmx.min.js", "third_party/uplot/uPlot.iife.min.js", "third_party/uplot/uPlot.min.css"} {
		b, err := files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("dashboard: %w", err)
		}
		var z bytes.Buffer
		w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if err == nil {
			_, err = w.Write(b)
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("dashboard: %s: %w", file, err)
		}
		sum := sha256.Sum256(b)
		all[path.Base(file)] = asset{kind: mime.TypeByExtension(path.Ext(file)), plain: b, gzipped: z.Bytes(), version: hex.EncodeToString(sum[:6])}
	}
	return all, nil
}

// link gives the address of an asset: it changes with the content, so that browsers may keep what it names for good.
func (a assets) link(name string) (string, error) {
	f, ok := a[name]
	if !ok {
		return "", fmt.Errorf("there is no asset %s", name)
	}
	return "/assets/" + f.version + "/" + name, nil
}

func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	f, ok := a[chi.URLParam(r, "name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	if chi.URLParam(r, "version") == f.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := f.plain
	if takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.gzipped
	}
	_, _ = w.Write(body) // a reader who is gone misses nothing
}

func takesGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" && strings.TrimSpace(q) != "q=0" {
			return true
		}
	}
	return false
}

var compressors = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// write sends a whole answer, compressed where the reader takes it. Pages hold the token of their forms beside text of
// their address; a compressed length gives neither away, because the session's cookie never comes with a request of
// another site (SameSite=Strict).
func write(w http.ResponseWriter, r *http.Request, status int, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept-Encoding")
	if len(body) < compressFrom || !takesGzip(r) {
		w.WriteHeader(status)
		_, _ = w.Write(body) // a reader who is gone misses nothing
		return
	}
	h.Set("Content-Encoding", "gzip")
	w.WriteHeader(status)
	z := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	z.Reset(w)
	_, _ = z.Write(body) // as above
	_ = z.Close()
}
