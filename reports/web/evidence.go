package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
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
	// Custody are the newest accesses; NoCustody says why they are not shown.
	Custody   []access
	NoCustody string
	Now       time.Time
}

// logView is the newest checkpoint as this page checked it, or why there is none to show.
type logView struct {
	Missing string
	Age     string
	api.LogState
	Witnesses []witnessView
	// Behind counts the leaves that are newer than the largest witnessed checkpoint.
	Behind int64
}

type witnessView struct {
	api.WitnessState
	Last int64 // leaf
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
	part := r.URL.Query().Get("part")
	if part == "" || part == "log" {
		page.Log = d.newestCheckpoint(r)
	}
	if part != "" {
		return "Evidence", page, nil
	}
	if d.services.Holds == nil {
		page.NoHolds = "This node keeps no holds."
	} else if page.Holds, err = d.services.Holds.Holds(r.Context()); err != nil {
		_, page.NoHolds = d.explain(r, err)
	}
	if d.services.Custody == nil {
		page.NoCustody = "This node keeps no custody list."
		return "Evidence", page, nil
	}
	list, _, err := d.services.Custody.Custody(r.Context(), api.CustodyQuery{Period: api.Period{From: d.now().AddDate(0, 0, -30), To: d.now()}, Limit: newestAccesses})
	if err != nil {
		_, page.NoCustody = d.explain(r, err)
	}
	page.Custody = accesses(list)
	return "Evidence", page, nil
}

// newestCheckpoint checks the state of the log. A log that is away takes itself off the page, not the page away.
func (d *Dashboard) newestCheckpoint(r *http.Request) logView {
	if d.services.Proofs == nil {
		return logView{Missing: "This node keeps no transparency log: its reports rest on the node's numbering without gaps and on their SHA-256, not on checkpoints that others have witnessed."}
	}
	facts, err := d.services.Proofs.Log(r.Context())
	if err != nil {
		_, text := d.explain(r, err)
		return logView{Missing: text}
	}
	state, ok := api.CheckLog(facts)
	if !ok {
		return logView{Missing: "No checkpoint has been signed yet."}
	}
	v := logView{LogState: state, Age: since(state.Time, d.now()), Behind: state.Size - state.Witnessed}
	if state.Witnessed == 0 {
		v.Behind = 0
	}
	for _, w := range state.Witnesses {
		v.Witnesses = append(v.Witnesses, witnessView{w, w.Size - 1})
	}
	return v
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
	Signers []api.Signer
	Hashes  []string
	// Holds says that the leaf, with the hashes, gives the root of the checkpoint that the log's key signed; Why says why not.
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
	v := proofView{Index: p.Index, Text: string(text), File: strings.Replace(eventLink(e), "?", "/proof?", 1)}
	facts, err := d.services.Proofs.Log(r.Context())
	if err != nil {
		_, why := d.explain(r, err)
		return proofView{Missing: why}
	}
	v.Signers = facts.Signers(string(p.Checkpoint))
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
	} else if !slices.ContainsFunc(v.Signers, func(s api.Signer) bool { return s.Verified && s.Name == c.Origin }) {
		v.Why = "the log's signature on the checkpoint does not verify"
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
