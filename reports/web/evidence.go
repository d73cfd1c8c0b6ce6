package web

import (
	"io"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports"
	"github.com/csfproxy/csfproxy/reports/api"
)

// evidencePage is what was made of the evidence, and what proves it.
type evidencePage struct {
	Picker  picker
	Formats []reports.Format
	Reports []api.Report
	Total   int
	Now     time.Time
}

func (d *Dashboard) evidence(r *http.Request) (string, any, error) {
	p, err := d.period(r)
	if err != nil {
		return "", nil, err
	}
	if d.services.Reports == nil {
		return "", nil, absent("reports")
	}
	page := evidencePage{Picker: p, Formats: reports.Formats(), Now: d.now()}
	if page.Reports, err = d.services.Reports.Reports(r.Context()); err != nil {
		return "", nil, err
	}
	page.Total = len(page.Reports)
	page.Reports = page.Reports[:min(page.Total, pageItems)]
	return "Evidence", page, nil
}

// download sends a report's file, as the API does.
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
}

func (d *Dashboard) proof(_ *http.Request, _ csf.Event) proofView {
	return proofView{Missing: "This node keeps no transparency log yet, so no checkpoint covers the event."}
}
