package reports

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// CustodyKinds are the kinds about evidence itself: reports, proofs, holds, erasures.
func CustodyKinds() []csf.Kind {
	var kinds []csf.Kind
	for _, k := range csf.Kinds() {
		group, _, _ := strings.Cut(string(k.Kind), ".")
		if slices.Contains([]string{"report", "evidence", "hold", "body"}, group) {
			kinds = append(kinds, k.Kind)
		}
	}
	return kinds
}

// evidenceRoutes are the parts of the API and of the dashboard that hand evidence out or decide what is kept of it.
var evidenceRoutes = []string{"/v1/reports", "/v1/events", "/v1/checkpoints", "/v1/log", "/v1/holds", "/v1/erasures", "/v1/custody", "/v1/samples", "/evidence", "/events"}

// custody lists accesses to evidence, oldest first.
func (c *collector) custody() {
	list, cut, err := ReadCustody(c.ctx, c.facts, c.period)
	if err != nil {
		c.gap("data", "custody", "could not be read: "+err.Error())
		return
	}
	if cut {
		c.gap("data", "custody", fmt.Sprintf("only accesses among the newest %d acts are listed", maxCustody))
	}
	c.model.Custody = append(c.model.Custody, list...)
}

// ReadCustody gives the accesses to evidence of a period, oldest first. cut says that the period has more acts than are
// read, and only those among the newest are listed.
func ReadCustody(ctx context.Context, facts Facts, p Period) (list []Custody, cut bool, err error) {
	events, err := facts.Events(ctx, []csf.Filter{csf.Of(CustodyKinds()...).Including(), csf.Of(csf.AdminAction)}, p, maxCustody)
	if err != nil {
		return nil, false, err
	}
	for _, e := range slices.Backward(events) {
		if c, ok := CustodyOf(e); ok {
			list = append(list, c)
		}
	}
	return list, len(events) == maxCustody, nil
}

// CustodyOf gives the access to evidence that an event records, if it is one.
func CustodyOf(e csf.Event) (Custody, bool) {
	action := csf.FieldText(e, "action")
	switch {
	case e.Kind == csf.AdminAction && (e.SelfTest || !AboutEvidence(action)):
		return Custody{}, false
	case e.Kind != csf.AdminAction && !slices.Contains(CustodyKinds(), e.Kind):
		return Custody{}, false
	case e.Kind != csf.AdminAction:
		action = string(e.Kind)
	}
	return Custody{Time: e.Time.UTC(), Node: e.Node, Seq: e.Seq, By: csf.FieldText(e, "by"), Role: csf.FieldText(e, "role"), Action: action,
		Object: cmp.Or(csf.FieldText(e, "object"), csf.FieldText(e, "report"), csf.FieldText(e, "hold")), Detail: custodyDetail(e)}, true
}

// AboutEvidence says whether an act of the API or the dashboard, such as "GET /v1/reports/{id}", concerns evidence.
func AboutEvidence(action string) bool {
	_, route, _ := strings.Cut(action, " ")
	return slices.ContainsFunc(evidenceRoutes, func(r string) bool { return route == r || strings.HasPrefix(route, r+"/") })
}

func custodyDetail(e csf.Event) string {
	var parts []string
	for _, name := range []string{"format", "from", "to", "sha256", "leaf", "count", "result", "detail", "status", "reason", "subject"} {
		if v := csf.FieldText(e, name); v != "" {
			parts = append(parts, name+" "+v)
		}
	}
	return strings.Join(parts, ", ")
}
