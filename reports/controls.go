package reports

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// control gathers the facts of one control, indexes them as evidence and evaluates them.
func (c *collector) control(k csf.Control) {
	out := Control{ID: k.ID, Title: k.Title, Subcategories: c.mapping.Subcategories(k.ID), Proof: k.Proof, Limit: k.Limit, SelfTest: k.SelfTest,
		Freshness: freshness(k.Freshness)}
	f := csf.ControlFacts{Proof: k.Proof, HasSelfTest: k.SelfTest != "", NeedsSandbox: k.Sandbox, Freshness: k.Freshness, Known: true}

	ask := func(typ string, filters []csf.Filter) Count {
		if len(filters) == 0 {
			return Count{}
		}
		e, err := c.evidence(k.ID, typ, filters)
		if err != nil {
			f.Known = false
			c.gap("data", k.ID, typ+" could not be read: "+err.Error())
			return Count{}
		}
		c.model.Evidence = append(c.model.Evidence, e)
		out.Evidence = append(out.Evidence, e.ID)
		return Count{e.Count, e.Last}
	}
	population := ask("population", k.Population)
	f.Population, f.LastSeen = population.N, population.Last
	f.Violations = ask("violations", k.Violations).N
	f.Excepted = ask("exceptions", k.Exceptions).N
	ask("activity", k.Evidence)
	drills := ask("drills", k.Drills)
	f.Drills, f.LastDrill = drills.N, drills.Last
	if k.SelfTest != "" {
		ask("self-test", []csf.Filter{csf.Of(csf.SelfTestRun).Is("test", k.SelfTest).Including()})
		c.testFacts(k.SelfTest, &f)
	}
	if err := c.excepted(k, &f); err != nil {
		f.Known = false
		c.gap("data", k.ID, "exceptions could not be read: "+err.Error())
	}
	if k.Proof == csf.ProofCompleteness {
		for _, s := range c.model.Cover.Sequences {
			f.Violations += s.Missing + s.Unequal
		}
	}

	v := csf.EvaluateControl(f, c.now)
	out.State, out.Reason, out.Facts, out.Waived = v.State, v.Reason, f, c.waivedBy(f)
	c.model.Controls = append(c.model.Controls, out)
	if v.State == csf.StateNotEvaluated || v.State == csf.StateStale {
		c.gap("control", k.ID, string(v.State)+": "+v.Reason)
	}
}

// evidence runs one query and fixes its result by a hash.
func (c *collector) evidence(control, typ string, filters []csf.Filter) (Evidence, error) {
	query := queryText(filters)
	if e, asked := c.answers[query]; asked { // many controls govern the same sessions
		e.ID, e.Control, e.Type = control+"."+typ, control, typ
		return e, nil
	}
	count, err := c.facts.Count(c.ctx, filters, c.period)
	if err != nil {
		return Evidence{}, err
	}
	e := Evidence{ID: control + "." + typ, Control: control, Type: typ, Query: query, Count: count.N, Last: utc(count.Last)}
	if count.N > 0 && !c.statesOnly {
		sample, err := c.facts.Events(c.ctx, filters, c.period, maxSample)
		if err != nil {
			return Evidence{}, err
		}
		for _, s := range sample {
			e.Sample = append(e.Sample, s.Node+"/"+strconv.FormatUint(s.Seq, 10))
		}
	}
	if e.SHA256, err = resultHash(e, c.period); err != nil {
		return Evidence{}, err
	}
	c.answers[query] = e
	return e, nil
}

// resultHash is the SHA-256 of the canonical result that Evidence.SHA256 describes.
func resultHash(e Evidence, p Period) (string, error) {
	stampOf := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	sample := e.Sample
	if sample == nil {
		sample = []string{}
	}
	b, err := json.Marshal(struct {
		Count  int64    `json:"count"`
		From   string   `json:"from"`
		Last   string   `json:"last"`
		Query  string   `json:"query"`
		Sample []string `json:"sample"`
		To     string   `json:"to"`
	}{e.Count, stampOf(p.From), stampOf(e.Last), e.Query, sample, stampOf(p.To)})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func freshness(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}
