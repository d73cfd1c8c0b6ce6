package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/store"
	"github.com/jackc/pgx/v5"
)

// shop is an application that puts what it is asked for into its statements as it comes, and shows what it gets: rows, and the
// database's error messages.
type shop struct {
	n    *node
	user string

	mu      sync.Mutex
	conn    *pgx.Conn
	asked   int // statements that it sent
	refused int // of them with 42501
	cut     int // of them on sessions that were ended, with 57P01, before they could be looked at
}

// page is what the shop answers with.
type page struct {
	status int
	body   string
	took   time.Duration
}

// ServeHTTP answers /name?q= and /id?q=: a literal that the value stands in, and a number.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sql := "SELECT id, name FROM items WHERE id = " + r.FormValue("q")
	if r.URL.Path == "/name" {
		sql = "SELECT id, name FROM items WHERE name = '" + r.FormValue("q") + "'"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.conn.IsClosed() {
		var err error
		if s.conn, err = s.n.tryDial(s.user, "app"); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	s.asked++
	results, err := s.conn.PgConn().Exec(r.Context(), sql).ReadAll()
	if err != nil {
		switch sqlState(err) {
		case "42501":
			s.refused++
		case "57P01":
			s.cut++
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, result := range results {
		for _, row := range result.Rows {
			fmt.Fprintf(w, "item %s: %s\n", row[0], row[1])
		}
	}
}

// extractor attacks the shop over HTTP through one of its pages.
type extractor struct {
	t    *testing.T
	base string
	page string
}

// ask injects a condition or a statement behind a value that is there, and cuts off what the shop puts behind it.
func (x extractor) ask(injected string) page {
	q := "1" + injected
	if x.page == "/name" {
		q = "lamp'" + injected + " -- "
	}
	begin := time.Now()
	r, err := http.Get(x.base + x.page + "?q=" + neturl.QueryEscape(q))
	if err != nil {
		x.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return page{r.StatusCode, string(body), time.Since(begin)}
}

// between gives what stands between two marks, "" when they are not there.
func between(s, left, right string) string {
	_, s, ok := strings.Cut(s, left)
	if !ok {
		return ""
	}
	s, _, ok = strings.Cut(s, right)
	if !ok {
		return ""
	}
	return s
}

// bisect reads n characters by questions whether the code of one is above a number.
func bisect(n int, above func(at, code int) bool) string {
	var got []byte
	for at := 1; at <= n; at++ {
		low, high := 31, 127 // above low, not above high
		for high-low > 1 {
			if middle := (low + high) / 2; above(at, middle) {
				low = middle
			} else {
				high = middle
			}
		}
		got = append(got, byte(high))
	}
	return string(got)
}

const stolen = "k7!Rq-plover"

// techniques are the five of sqlmap's that read; each gives what it read, and how much of the value it is after.
var techniques = []struct {
	name string
	want string
	read func(extractor) string
}{
	{"union", stolen, func(x extractor) string {
		return between(x.ask(" AND 1=0 UNION ALL SELECT 7, '<<'||v||'>>' FROM vault").body, "<<", ">>")
	}},
	{"error", stolen, func(x extractor) string {
		return between(x.ask(" AND 1=CAST((SELECT '<<'||v||'>>' FROM vault) AS numeric)").body, "<<", ">>")
	}},
	{"boolean", stolen, func(x extractor) string {
		return bisect(len(stolen), func(at, code int) bool {
			return strings.Contains(x.ask(fmt.Sprintf(" AND ASCII(SUBSTRING((SELECT v FROM vault)::text FROM %d FOR 1))>%d", at, code)).body, "lamp")
		})
	}},
	{"stacked", stolen, func(x extractor) string {
		x.ask("; INSERT INTO items SELECT 99, '<<'||v||'>>' FROM vault")
		r, err := http.Get(x.base + "/id?q=99")
		if err != nil {
			x.t.Fatal(err)
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return between(string(body), "<<", ">>")
	}},
	{"time", stolen[:2], func(x extractor) string {
		const nap = 400 * time.Millisecond
		return bisect(2, func(at, code int) bool {
			for range 2 { // a busy machine is slow now and then
				if x.ask(fmt.Sprintf(" AND 0=(SELECT CASE WHEN ascii(substr(v,%d,1))>%d THEN length(pg_sleep(%.1f)::text) ELSE 0 END FROM vault)", at, code, nap.Seconds())).took < nap {
					return false
				}
			}
			return true
		})
	}},
}

// play runs the shop behind the node and all techniques through both of its pages, and gives what each read.
func play(t *testing.T, n *node, user string) (got map[string]string, s *shop) {
	s = &shop{n: n, user: user}
	web := httptest.NewServer(s)
	defer web.Close()
	got = map[string]string{}
	for _, page := range []string{"/name", "/id"} {
		for _, technique := range techniques {
			admin(t, "app", "DELETE FROM items WHERE id = 99")
			got[technique.name+page] = technique.read(extractor{t, web.URL, page})
		}
	}
	s.conn.Close(context.Background())
	return got, s
}

func vault(t *testing.T) {
	admin(t, "app", "DROP TABLE IF EXISTS items, vault", "CREATE TABLE items (id int, name text)", "INSERT INTO items VALUES (1, 'lamp'), (2, 'chair')",
		"CREATE TABLE vault (v text)", "INSERT INTO vault VALUES ('"+stolen+"')", "GRANT ALL ON items, vault TO PUBLIC")
	t.Cleanup(func() { admin(t, "app", "DROP TABLE items, vault") })
}

// TestExtraction plays the five techniques by which sqlmap reads against an application that is open to injection. Without
// rules each gets the value. With the built-in rules and an identity of high risk none gets a byte through a literal; through
// a number, where nothing needs to be cut off, a UNION and the error of a cast are ordinary SQL, and get it. Whatever the
// outcome, each statement is on record, and each refused one has its event (SQ-32).
func TestExtraction(t *testing.T) {
	vault(t)
	none := t.TempDir() + "/none.yaml"
	if err := os.WriteFile(none, []byte("id: statement.none\ntitle: Nothing\nseverity: low\ncsf: [DE.CM-09]\nenabled: false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []struct {
		name, rules string
		passes      []string
	}{
		{"open", "[" + none + "]", []string{"union/name", "error/name", "boolean/name", "stacked/name", "time/name", "union/id", "error/id", "boolean/id", "stacked/id", "time/id"}},
		{"block", "[builtin]", []string{"union/id", "error/id"}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			n := startNode(t, setup{Rules: mode.rules, Store: "own", Identities: []string{row("app", "risk: high")}})
			got, s := play(t, n, "app")
			for _, technique := range techniques {
				for _, page := range []string{"/name", "/id"} {
					name, want := technique.name+page, ""
					for _, p := range mode.passes {
						if p == name {
							want = technique.want
						}
					}
					read := got[name]
					if technique.name == "boolean" || technique.name == "time" { // what a bisection reads where every answer is no
						read = strings.TrimRight(read, " ")
					}
					// With the rules on sessions end by themselves (statement.denied_series), that of a statement which passes too.
					if read != want && (mode.name == "open" || read != "") {
						t.Errorf("%s read %q, want %q", name, read, want)
					}
				}
			}
			records, denied := n.statements(), 0
			for _, r := range records {
				if r.Outcome == store.OutcomeRefused {
					denied++
				}
			}
			ended := len(n.every(csf.Of(csf.SessionTerminated)))
			if len(records)+s.cut < s.asked || s.cut > ended {
				t.Errorf("%d statements were sent, %d are on record; %d sessions ended before theirs, %d on record", s.asked, len(records), s.cut, ended)
			}
			blocked := len(n.every(csf.Of(csf.QueryBlocked)))
			t.Logf("%d statements, %d refused, %d on record, %d events of refusals; %d found their session ended", s.asked, s.refused, len(records), blocked, s.cut)
			// Some sessions end before their refusal is told.
			if denied != blocked || denied < s.refused || denied > s.refused+s.cut || mode.name == "block" && blocked < 50 || mode.name == "open" && blocked != 0 {
				t.Errorf("%d statements were told to be refused, %d are on record as refused, %d events", s.refused, denied, blocked)
			}
		})
	}
}

// TestExtractionSeries: an identity of ordinary risk whose statements read a value character by character (SQ-06), or out of
// the errors of casts (SQ-05), is a finding; an application that asks for first letters, and whose users type what is no
// number now and then, is none.
func TestExtractionSeries(t *testing.T) {
	vault(t)
	n := startNode(t, setup{Store: "own", Identities: []string{row("app"), row("walker"), row("worker")}})
	ctx := t.Context()

	honest := n.dial("worker", "app")
	for i := range 200 {
		letter := string(rune('a' + i%26))
		var count int
		if err := honest.QueryRow(ctx, "SELECT count(*) FROM items WHERE substring(name, 1, 1) = $1", letter).Scan(&count); err != nil {
			t.Fatal(err)
		}
		if err := honest.QueryRow(ctx, "SELECT count(*) FROM items WHERE substring(name, 1, 1) = $1", pgx.QueryExecModeSimpleProtocol, letter).Scan(&count); err != nil {
			t.Fatal(err)
		}
		if err := honest.QueryRow(ctx, "SELECT count(*) FROM items WHERE left((SELECT v FROM vault), 1) = 'a' AND id <> $1", i).Scan(&count); err != nil {
			t.Fatal(err)
		}
		if _, err := honest.Exec(ctx, "SELECT $1::text::int", "x"+letter); sqlState(err) != "22P02" {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if _, err := honest.Exec(ctx, "SELECT * FROM items WHERE id = $1::int", pgx.QueryExecModeSimpleProtocol, fmt.Sprint("x", i)); sqlState(err) != "22P02" {
			t.Fatal(err)
		}
	}

	ask := func(user string) extractor {
		web := httptest.NewServer(&shop{n: n, user: user})
		t.Cleanup(web.Close)
		return extractor{t, web.URL, "/id"}
	}
	if got := techniques[2].read(ask("app")); got != stolen {
		t.Errorf("an ordinary identity is not refused, and read %q", got)
	}
	x := ask("walker")
	for at := range len(stolen) {
		if got := between(x.ask(fmt.Sprintf(" AND 1=CAST((SELECT '<<'||substr(v,%d,1)||'>>' FROM vault) AS numeric)", at+1)).body, "<<", ">>"); got != stolen[at:at+1] {
			t.Errorf("the error tells %q", got)
		}
	}
	for rule, identity := range map[string]string{"statement.piecewise_series": "app", "statement.error_series": "walker"} {
		e := n.waitFor(csf.FindingOpened, func(e csf.Event) bool { return e.Facts["rule"] == rule })
		if e.Identity != identity {
			t.Errorf("%s is about %s, want %s", rule, e.Identity, identity)
		}
	}
	for _, e := range n.Recent(n.began, csf.FindingOpened) {
		if rule := fmt.Sprint(e.Facts["rule"]); e.Identity == "worker" && strings.HasSuffix(rule, "_series") {
			t.Errorf("%s is a false alarm: %v", rule, e.Facts)
		}
	}
}
