package reports

import (
	"slices"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// HeaderView gives the part of a model that follows from the headers of the period's events and from the Input alone.
// Headers hold no personal data: who acted, names of identities and free text stand in the bodies, which may be
// withheld or erased. Two models of the same headers, one made with the bodies and one without, have equal header
// views; whoever checks a report offline compares these. Events given without bodies must have, for each field that
// their header says the body has, some text that is not empty, so that conditions on presence hold.
func HeaderView(m Model) Model {
	for i := range m.Cover.Sequences {
		if i == 0 {
			m.Cover.Sequences = slices.Clone(m.Cover.Sequences)
		}
		m.Cover.Sequences[i].Spooled = 0 // known to the running node alone
	}
	m.Runs = slices.Clone(m.Runs)
	for i := range m.Runs {
		m.Runs[i].Detail = ""
	}
	m.Registers = slices.Clone(m.Registers)
	for i := range m.Registers {
		if m.Registers[i].Type == EntryIdentity {
			m.Registers[i].Uses, m.Registers[i].LastUse, m.Registers[i].Status = 0, time.Time{}, ""
		}
	}
	m.Gaps = slices.DeleteFunc(slices.Clone(m.Gaps), func(g Gap) bool { return g.Type == "register" || g.Type == "data" || g.Type == "record" })
	m.Timeline = slices.Clone(m.Timeline)
	for i := range m.Timeline {
		m.Timeline[i].Subject, m.Timeline[i].Detail = "", ""
	}
	m.Custody = slices.DeleteFunc(slices.Clone(m.Custody), func(c Custody) bool { return !slices.Contains(CustodyKinds(), csf.Kind(c.Action)) })
	for i := range m.Custody {
		m.Custody[i] = Custody{Time: m.Custody[i].Time, Node: m.Custody[i].Node, Seq: m.Custody[i].Seq, Action: m.Custody[i].Action}
	}
	m.Trend = slices.DeleteFunc(slices.Clone(m.Trend), func(p TrendPoint) bool { return p.Source != SourcePeriod })
	m.Changes = nil
	m.Times = slices.Clone(m.Times)
	for i := range m.Times {
		m.Times[i].Subject = ""
	}
	return m
}
