package web

import (
	"net/http"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

// newestAccesses is how many accesses the evidence page shows of the custody list.
const newestAccesses = 6

// accessGroup is a kind of access that the custody page can be narrowed to.
type accessGroup struct {
	Name, Text string
	Kinds      []csf.Kind
}

func accessGroups() []accessGroup {
	return []accessGroup{
		{"made", "made a report or pack", []csf.Kind{csf.ReportGenerated}},
		{"taken", "took a file away", []csf.Kind{csf.EvidenceExported}},
		{"verified", "verified a report or pack", []csf.Kind{csf.ReportVerified}},
		{"sampled", "drew a sample", []csf.Kind{csf.EvidenceRead}},
		{"held", "applied or released a hold", []csf.Kind{csf.HoldApplied, csf.HoldReleased}},
		{"erased", "erased bodies", []csf.Kind{csf.BodyErased}},
		{"opened", "opened pages and calls of the API", []csf.Kind{csf.AdminAction}},
	}
}

// accessText gives what an access was, in words.
func accessText(a api.Custody) string {
	switch csf.Kind(a.Action) {
	case csf.ReportGenerated:
		return "made a report"
	case csf.EvidenceExported:
		return "took the file away"
	case csf.ReportVerified:
		return "verified it"
	case csf.EvidenceRead:
		return "drew a sample"
	case csf.HoldApplied:
		return "applied a hold"
	case csf.HoldReleased:
		return "released a hold"
	case csf.BodyErased:
		return "erased bodies"
	}
	method, route, _ := strings.Cut(a.Action, " ")
	switch {
	case strings.HasSuffix(route, "/proof"):
		return "took a proof"
	case strings.HasSuffix(route, "/download"), route == "/evidence/reports/{id}":
		return "asked for the file"
	case method == http.MethodGet:
		return "read"
	}
	return "acted"
}

// access is one line of the custody list.
type access struct {
	api.Custody
	Text string
	// Call is the route where the access was a call, "" where it has an event of its own.
	Call  string
	Event csf.Event // enough of it for a link
}

func accesses(list []api.Custody) []access {
	out := make([]access, 0, len(list))
	for _, a := range list {
		v := access{Custody: a, Text: accessText(a), Event: csf.Event{Node: a.Node, Seq: a.Seq, Time: a.Time}}
		if strings.Contains(a.Action, " ") {
			v.Call = a.Action
		}
		out = append(out, v)
	}
	return out
}

// custodyPage is one page of who touched evidence.
type custodyPage struct {
	Picker picker
	Groups []accessGroup
	What   string // the chosen group, "" for all
	By     string
	List   []access
	Later  bool   // the page is not the first
	First  string // the link to the first page
	Next   string // the link to the page after this one
}

func (d *Dashboard) custody(r *http.Request) (string, any, error) {
	if d.services.Custody == nil {
		return "", nil, absent("custody log")
	}
	p, err := d.period(r)
	if err != nil {
		return "", nil, err
	}
	q := r.URL.Query()
	page := custodyPage{Picker: p, Groups: accessGroups(), What: q.Get("what"), By: q.Get("by"), Later: q.Get("cursor") != ""}
	ask := api.CustodyQuery{Period: p.Period, By: page.By, Cursor: q.Get("cursor"), Limit: pageItems}
	for _, g := range page.Groups {
		if g.Name == page.What {
			ask.Kinds = g.Kinds
		}
	}
	list, next, err := d.services.Custody.Custody(r.Context(), ask)
	if err != nil {
		return "", nil, err
	}
	page.List = accesses(list)
	var chosen []string
	for _, f := range [][2]string{{"what", page.What}, {"by", page.By}} {
		if f[1] != "" {
			chosen = append(chosen, f[0], f[1])
		}
	}
	page.First = p.Link("/evidence/custody", chosen...)
	if next != "" {
		page.Next = p.Link("/evidence/custody", append(chosen, "cursor", next)...)
	}
	return "Custody", page, nil
}
