package reports

import (
	"fmt"
	"slices"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// activity counts the events of the period by kind.
func (c *collector) activity() {
	for _, k := range csf.Kinds() {
		n, err := c.facts.Count(c.ctx, []csf.Filter{csf.Of(k.Kind)}, c.period)
		if err != nil {
			c.gap("data", string(k.Kind), "could not be counted: "+err.Error())
			continue
		}
		if n.N > 0 {
			c.model.Activity = append(c.model.Activity, Activity{string(k.Kind), k.Doc, n.N})
		}
	}
}

// timelineKinds are the kinds of the timeline, and timelineFacts the facts that it shows of them.
var timelineKinds = []csf.Kind{csf.FindingOpened, csf.FindingClosed, csf.ContainmentApplied, csf.ContainmentLifted, csf.AlertFailed,
	csf.HealthDown, csf.HealthUp, csf.RoleChanged, csf.RunbookStarted, csf.RunbookFinished, csf.FailoverSwitched, csf.DrillFinished,
	csf.LogSinkFailed, csf.LogSinkRestored, csf.LogGapDetected, csf.NodeRecovered, csf.RegistryExpired}

var timelineFacts = []string{"rule", "severity", "count", "scope", "subject", "act_ms", "sessions_ended", "expires", "from", "to", "term", "ms",
	"confirm_ms", "fence_ms", "promote_ms", "verify_ms", "runbook", "drill", "dry_run", "result", "goal_ms", "actual_ms", "down_ms", "by",
	"receiver", "attempts", "name", "type", "sessions", "detail"}

func (c *collector) timeline() {
	filters := []csf.Filter{csf.Of(timelineKinds...)}
	events, err := c.facts.Events(c.ctx, filters, c.period, maxTimeline)
	if err != nil {
		c.gap("data", "timeline", "could not be read: "+err.Error())
		return
	}
	if len(events) == maxTimeline {
		c.gap("data", "timeline", fmt.Sprintf("only the newest %d entries are listed", maxTimeline))
	}
	slices.Reverse(events)
	for _, e := range events {
		h := Happening{Time: e.Time.UTC(), Node: e.Node, Seq: e.Seq, Kind: e.Kind}
		var parts []string
		for _, name := range timelineFacts {
			if v := csf.FieldText(e, name); v != "" {
				parts = append(parts, name+" "+v)
			}
		}
		if e.Reason != "" {
			parts = append(parts, "reason "+string(e.Reason))
		}
		h.Detail = strings.Join(parts, ", ")
		for _, v := range []string{csf.FieldText(e, "subject"), e.Identity, e.Source, e.Upstream, e.Cluster} {
			if v != "" {
				h.Subject = v
				break
			}
		}
		c.model.Timeline = append(c.model.Timeline, h)
	}
}

// blindSpots adds the rows that were not evaluated, what this version lacks, and what holds for every report.
func (c *collector) blindSpots() {
	for _, r := range c.model.Rows {
		if r.State == csf.StateNotEvaluated {
			c.gap("subcategory", r.ID, "NOT EVALUATED: "+r.Reason)
		}
	}
	for _, r := range c.model.Rows {
		if r.Absent != "" && len(r.Controls) > 0 {
			c.gap("subcategory", r.ID, "Not in this version: "+r.Absent)
		}
	}
	for _, b := range blindSpots {
		c.gap("blind spot", b.Title, b.Text)
	}
}

var blindSpots = []Note{
	{"Other paths to the databases", "Connections that do not pass the ingress are not seen. Only a bypass probe from elsewhere says whether such a path is open."},
	{"SQL inside functions", "Inspection reads the text that a client sends. What runs inside functions, DO blocks and dynamic SQL is not seen; privileges in PostgreSQL are the control."},
	{"What clients say of themselves", "application_name, options and the user name before authentication are claims. They are recorded as claims and allow nothing."},
	{"PROXY headers", "A header from a registered source asserts an address, not a person, and is worth what the source is worth."},
	{"Operators", "Records that only the operator holds prove nothing against the operator. Keep a copy of each report, or of the signed checkpoints, elsewhere."},
	{"Self-tests", "A self-test shows that a tried violation was refused at that time, not that no other way exists. Its traffic is left out of every population."},
}

// method says how the figures came to be.
func method(m Model) []Note {
	official := "The outcomes are summarised in this project's own words; NIST's texts are shown when the configuration names NIST's OSCAL catalog (csf.catalog)."
	if m.Cover.Catalog != "" {
		official = fmt.Sprintf("The outcomes are NIST's texts from %s (SHA-256 %s).", m.Cover.Catalog, m.Cover.CatalogSHA256)
	}
	return []Note{
		{"What is claimed", "Each claim is about the database ingress and no more; its limit stands beside it. 13 subcategories can be enforced there, for 19 it gives evidence, for 32 it supplies facts to what people do, and 42 are out of its reach; these are listed with the reason. No percentage of compliance is given, since the subcategories are not of one weight."},
		{"Catalogue and mapping", fmt.Sprintf("%s, 106 subcategories; mapping version %s. %s", m.Cover.Framework, m.Cover.Mapping, official)},
		{"Period and population", "From ≤ event time < To, in UTC. A population is every event of the period that the query of the evidence index selects; nothing is sampled except where the column says so. Traffic of self-tests is left out."},
		{"Proof", "Negative: a violation is tried against the live listener and must be refused. Population: everything is counted, and what breaks the rule among it. Completeness: the listeners' counters equal the records, and no sequence number is missing. Drill: a timed exercise or the real event. A self-test counts only if it also fails where its control is off."},
		{"State of a control", "FAILED: a violation without exception, or the last self-test failed. NOT EVALUATED: nothing was seen, no self-test or drill ran, the test could not be shown to fail, or the facts could not be read. STALE: the last proof is older than the control's freshness at the end of the period. EXCEPTION: only cases under an approved entry of a register, or a test that failed earlier and passes now. EFFECTIVE: none of these."},
		{"State of a subcategory", "The worst state of its controls. OUT OF SCOPE for what an ingress cannot show; NOT EVALUATED where this version has no control for it, or enforcement was only observed; SUPPORTED instead of EFFECTIVE where people do the work and the ingress supplies facts. Every subcategory stays in the denominator."},
		{"Evidence hashes", "The SHA-256 of an evidence line is over the JSON object {count, from, last, query, sample, to}: members in this order, no white space, times in RFC 3339. Whoever runs the same query over the same events gets the same hash."},
		{"References", "CSF 1.1 and SP 800-53 identifiers point the reader to related text. They are no claim about those documents."},
	}
}
