package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/csfproxy/csfproxy/store/translog"
)

// packFormat is the format of an evidence pack, which is no rendering of the model alone.
const packFormat = "pack"

// formats gives what can be made, the pack first.
func formats() []string {
	list := []string{packFormat}
	for _, f := range reports.Formats() {
		list = append(list, string(f))
	}
	return list
}

// evidencePage is what was made of the evidence, and what proves it.
type evidencePage struct {
	Picker  picker
	Formats []string
	Reports []api.Report
	Total   int
	Log     logView
	Holds   []api.Hold
	NoHolds string // why they are not shown
	Now     time.Time
}

// logView is the newest checkpoint, or why there is none to show.
type logView struct {
	Missing string
	Origin  string
	Size    int64
	Root    string
	Time    time.Time
	Age     string
	Keys    []string // names of those who signed the note, the log's own first
	Note    string
}

// Witnesses gives the names of those who signed beside the log.
func (v logView) Witnesses() []string {
	var list []string
	for _, k := range v.Keys {
		if k != v.Origin {
			list = append(list, k)
		}
	}
	return list
}

func (d *Dashboard) evidence(r *http.Request) (string, any, error) {
	p, err := d.period(r)
	if err != nil {
		return "", nil, err
	}
	if d.services.Reports == nil {
		return "", nil, absent("reports")
	}
	page := evidencePage{Picker: p, Formats: formats(), Now: d.now()}
	if page.Reports, err = d.services.Reports.Reports(r.Context()); err != nil {
		return "", nil, err
	}
	page.Total = len(page.Reports)
	page.Reports = page.Reports[:min(page.Total, pageItems)]
	if part := r.URL.Query().Get("part"); part == "" || part == "log" {
		page.Log = d.newestCheckpoint(r)
	}
	if d.services.Holds == nil {
		page.NoHolds = "This node keeps no holds."
	} else if page.Holds, err = d.services.Holds.Holds(r.Context()); err != nil {
		_, page.NoHolds = d.explain(r, err)
	}
	return "Evidence", page, nil
}

// newestCheckpoint reads the state of the log. A log that is away takes itself off the page, not the page away.
func (d *Dashboard) newestCheckpoint(r *http.Request) logView {
	if d.services.Proofs == nil {
		return logView{Missing: "This node keeps no transparency log: its reports rest on the node's numbering without gaps and on their SHA-256, not on checkpoints that others have witnessed."}
	}
	c, err := d.services.Proofs.Latest(r.Context())
	if errors.Is(err, api.ErrNotFound) {
		return logView{Missing: "No checkpoint has been signed yet."}
	}
	if err != nil {
		_, text := d.explain(r, err)
		return logView{Missing: text}
	}
	v := logView{Size: c.Size, Root: c.Root, Time: c.Time, Age: since(c.Time, d.now()), Note: c.Note, Keys: signers(c.Note)}
	v.Origin, _, _ = strings.Cut(c.Note, "\n")
	return v
}

// signers gives the names in a note's signature lines. It checks no signature: who does not trust the node checks
// with csfproxy verify and the public keys.
func signers(note string) []string {
	_, lines, _ := strings.Cut(note, "\n\n")
	var list []string
	for _, line := range strings.Split(lines, "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "—" {
			list = append(list, f[1])
		}
	}
	return list
}

// download sends a report's file and records that it left, as the API does.
func (d *Dashboard) download(w http.ResponseWriter, r *http.Request) {
	const route = "/evidence/reports/{id}"
	x, ok := d.current(w, r, route)
	if !ok {
		return
	}
	v, id := d.view(x), chi.URLParam(r, "id")
	if need := d.roles["download-report"]; !x.person.Role.May(need) {
		d.refuse(w, r, v, route, id, need)
		return
	}
	var report api.Report
	var file io.ReadCloser
	err := absent("reports")
	if d.services.Reports != nil {
		report, file, err = d.services.Reports.Open(r.Context(), id)
	}
	if err == nil && d.services.Recorder != nil {
		if failed := d.services.Recorder.Record(r.Context(), api.Export(report, x.person)); failed != nil {
			file.Close()
			err = fmt.Errorf("%w: the export could not be recorded: %w", api.ErrUnavailable, failed)
		}
	}
	if err != nil {
		status, text := d.explain(r, err)
		d.record(r, x.person, route, id, "", status)
		d.problem(w, r, v, status, text)
		return
	}
	defer file.Close()
	d.record(r, x.person, route, id, "", http.StatusOK)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(actTimeout)) // a recorder has none
	api.WriteReport(w, report, file)
}

// proofView is what the page of an event says about its proof.
type proofView struct {
	// Missing says why there is none.
	Missing string
	Index   int64
	Size    int64
	Root    string
	Origin  string
	Keys    []string
	Hashes  []string
	// Holds says that the leaf, with the hashes, gives the root of the checkpoint; Why says why not.
	Holds bool
	Why   string
	Text  string
	File  string // address of the proof as a file
}

// proof reads the inclusion proof of an event and follows it to the root.
func (d *Dashboard) proof(r *http.Request, e csf.Event) proofView {
	if d.services.Proofs == nil {
		return proofView{Missing: "This node keeps no transparency log, so no checkpoint covers the event."}
	}
	text, err := d.services.Proofs.Proof(r.Context(), e.Node, e.Seq)
	if errors.Is(err, api.ErrNotFound) {
		return proofView{Missing: "No signed checkpoint covers the event yet. One follows within seconds of its arrival in the event store."}
	}
	if err != nil {
		_, why := d.explain(r, err)
		return proofView{Missing: why}
	}
	p, err := translog.ParseProof(text)
	if err != nil {
		return proofView{Missing: "The proof cannot be read: " + err.Error()}
	}
	v := proofView{Index: p.Index, Keys: signers(string(p.Checkpoint)), Text: string(text), File: strings.Replace(eventLink(e), "?", "/proof?", 1)}
	for _, h := range p.Hashes {
		v.Hashes = append(v.Hashes, h.String())
	}
	c, err := translog.Unverified(p.Checkpoint)
	if err != nil {
		return proofView{Missing: "The checkpoint cannot be read: " + err.Error()}
	}
	v.Origin, v.Size, v.Root = c.Origin, c.Size, c.Root.String()
	if p.Extra == nil {
		v.Why = "the leaf's data is not stored any more"
	} else if err := tlog.CheckRecord(tlog.RecordProof(p.Hashes), c.Size, c.Root, p.Index, translog.LeafHash(p.Extra)); err != nil {
		v.Why = err.Error()
	} else {
		v.Holds = true
	}
	return v
}

// proofFile sends the proof of an event as a file in C2SP's form.
func (d *Dashboard) proofFile(w http.ResponseWriter, r *http.Request) {
	const route = "/events/{node}/{seq}/proof"
	x, ok := d.current(w, r, route)
	if !ok {
		return
	}
	v, object := d.view(x), objectOf(r)
	if need := d.roles["event-proof"]; !x.person.Role.May(need) {
		d.refuse(w, r, v, route, object, need)
		return
	}
	node, seq, err := api.ParseEventID(object)
	if err == nil && d.services.Proofs == nil {
		err = absent("transparency log")
	}
	var text []byte
	if err == nil {
		text, err = d.services.Proofs.Proof(r.Context(), node, seq)
	}
	if err != nil {
		status, why := d.explain(r, err)
		d.record(r, x.person, route, object, "", status)
		d.problem(w, r, v, status, why)
		return
	}
	d.record(r, x.person, route, object, "", http.StatusOK)
	w.Header().Set("Content-Disposition", `attachment; filename="event-`+strconv.FormatUint(seq, 10)+`.tlog-proof"`)
	write(w, r, http.StatusOK, "text/plain; charset=utf-8", text)
}
