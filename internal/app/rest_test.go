package app

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/reports/pack"
)

// callAs asks the API with the token of a role.
func (n *node) callAs(role api.Role, method, path, body string) (int, string) {
	n.t.Helper()
	token, err := n.Token(role)
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.APIAddr()+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Close = true
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestKill ends one session by its id; its client is told 57P01, others stay, and who did it is on record.
func TestKill(t *testing.T) {
	n := startNode(t, setup{API: "127.0.0.1:0"})
	victim, other := n.dial("app", "app"), n.dial("app", "app")
	if _, err := victim.Exec(t.Context(), "SET application_name = 'victim'"); err != nil {
		t.Fatal(err)
	}
	first := n.waitFor(csf.SessionBound, nil).Session
	if code, body := n.callAs(api.RoleAuditor, http.MethodDelete, "/v1/sessions/"+first, ""); code != http.StatusForbidden {
		t.Errorf("an auditor may kill: %d %s", code, body)
	}
	if code, body := n.callAs(api.RoleOperator, http.MethodDelete, "/v1/sessions/"+first, ""); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, body)
	}
	if code := endOf(t, victim); code != "57P01" {
		t.Errorf("the session ended with %q", code)
	}
	if _, err := other.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the other session: %v", err)
	}
	n.waitFor(csf.SessionTerminated, func(e csf.Event) bool { return e.Session == first && e.Reason == csf.ReasonKilled })
	n.waitFor(csf.AdminAction, func(e csf.Event) bool { return e.Facts["object"] == first })
	if code, _ := n.callAs(api.RoleOperator, http.MethodDelete, "/v1/sessions/"+first, ""); code != http.StatusNotFound {
		t.Errorf("a session that has ended: %d", code)
	}
}

// TestContain keeps an identity out: its sessions end, new ones are refused, until it is lifted.
func TestContain(t *testing.T) {
	n := startNode(t, setup{API: "127.0.0.1:0", Identities: []string{row("app"), row("gone")}})
	contained, other := n.dial("gone", "app"), n.dial("app", "app")
	code, body := n.call(http.MethodPost, "/v1/containments", `{"kind": "identity", "target": "gone", "duration": "10m", "reason": "acceptance"}`)
	if code != http.StatusCreated {
		t.Fatalf("%d %s", code, body)
	}
	var c struct {
		ID       string `json:"id"`
		Sessions int    `json:"sessions_ended"`
	}
	if err := json.Unmarshal([]byte(body), &c); err != nil || c.ID == "" || c.Sessions != 1 {
		t.Fatalf("%v %s", err, body)
	}
	if code, body := n.call(http.MethodGet, "/v1/containments", ""); code != http.StatusOK || !strings.Contains(body, `"sessions_ended":1`) {
		t.Errorf("listed: %d %s", code, body)
	}
	if code := endOf(t, contained); code != csf.ReasonContained.Info().SQLSTATE && code != "57P01" {
		t.Errorf("the session ended with %q", code)
	}
	if _, err := n.tryDial("gone", "app"); sqlState(err) != csf.ReasonContained.Info().SQLSTATE {
		t.Errorf("a new session: %v", err)
	}
	if _, err := other.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the other identity: %v", err)
	}
	if code, body := n.call(http.MethodDelete, "/v1/containments/"+c.ID, ""); code != http.StatusNoContent {
		t.Fatalf("%d %s", code, body)
	}
	n.dial("gone", "app")
	n.waitFor(csf.ContainmentApplied, func(e csf.Event) bool { return integer(t, e.Facts["sessions_ended"]) == 1 })
	n.waitFor(csf.ContainmentLifted, nil)
}

// TestReports makes each format by REST and reads it back.
func TestReports(t *testing.T) {
	n := startNode(t, setup{Store: "own", API: "127.0.0.1:0"})
	c := n.dial("app", "app")
	if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	for format, check := range map[string]func(body string) error{
		"xlsx": func(body string) error {
			z, err := zip.NewReader(bytes.NewReader([]byte(body)), int64(len(body)))
			if err == nil && len(z.File) < 10 {
				err = fmt.Errorf("%d parts", len(z.File))
			}
			return err
		},
		"json": func(body string) error {
			var v any
			if err := json.Unmarshal([]byte(body), &v); err != nil {
				return err
			}
			if !strings.Contains(body, "GV.OC-01") {
				return fmt.Errorf("no row GV.OC-01")
			}
			return nil
		},
		"pack": func(body string) error {
			got, err := pack.Verify(t.Context(), strings.NewReader(body), int64(len(body)), pack.Options{Keys: []string{n.translog.key.VerifierKey()}})
			if err == nil && !got.OK() {
				err = got.Failure
			}
			return err
		},
		"html": func(body string) error {
			if !strings.Contains(body, "<html") || !strings.Contains(body, "GV.OC-01") {
				return fmt.Errorf("%.200s", body)
			}
			return nil
		},
	} {
		t.Run(format, func(t *testing.T) {
			code, body := n.call(http.MethodPost, "/v1/reports", `{"format": "`+format+`"}`)
			var r struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal([]byte(body), &r); err != nil || code != http.StatusAccepted {
				t.Fatalf("%d %s", code, body)
			}
			n.reportDone(r.ID)
			code, body = n.call(http.MethodGet, "/v1/reports/"+r.ID+"/download", "")
			if code != http.StatusOK {
				t.Fatalf("%d %.300s", code, body)
			}
			if err := check(body); err != nil {
				t.Error(err)
			}
		})
	}
	n.waitFor(csf.ReportGenerated, nil)
}
