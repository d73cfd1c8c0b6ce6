package reports

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrNoBrowser is the error of a PDF on a machine without a browser that can print one.
var ErrNoBrowser = errors.New("no browser that prints PDF was found: install Chromium (Debian: apt-get install chromium) or name its program in CSFPROXY_CHROMIUM; the format html prints the same from any browser")

// browsers are the names of programs that print as Chromium does.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge"}

// printTime bounds the printing of one report.
const printTime = 3 * time.Minute

// browser finds the program.
func browser() (string, error) {
	if named := os.Getenv("CSFPROXY_CHROMIUM"); named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("%w (CSFPROXY_CHROMIUM: %w)", ErrNoBrowser, err)
		}
		return path, nil
	}
	for _, name := range browsers {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoBrowser
}

// writePDF prints the page by a headless browser, in a directory of its own that is gone afterwards. The page loads
// nothing and runs nothing, so the browser's sandbox, which does not work for root and in many containers, has nothing
// to keep in; the network is switched off for it all the same.
func writePDF(ctx context.Context, m Model, d Depth, w io.Writer) (err error) {
	program, err := browser()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "csfproxy-pdf-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var page bytes.Buffer
	if err := writeHTML(m, d, &page); err != nil {
		return err
	}
	in, out := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.pdf")
	if err := os.WriteFile(in, page.Bytes(), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, printTime)
	defer cancel()
	c := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
		"--no-first-run", "--no-default-browser-check", "--host-resolver-rules=MAP * ~NOTFOUND", "--user-data-dir="+filepath.Join(dir, "profile"),
		"--no-pdf-header-footer", "--print-to-pdf="+out, "file://"+in)
	c.Dir, c.Env = dir, append(os.Environ(), "HOME="+dir)
	c.WaitDelay = 5 * time.Second
	said, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s could not print: %w: %s", program, err, lastLine(said))
	}
	f, err := os.Open(out)
	if err != nil {
		return fmt.Errorf("%s printed nothing: %s", program, lastLine(said))
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// lastLine is what a program said last, in one line of bounded length.
func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	s := strings.TrimSpace(lines[len(lines)-1])
	return s[:min(len(s), 300)]
}
