package recovery

import (
	"fmt"
	"strings"
)

// Problem names what keeps a cluster from having exactly one primary.
type Problem string

// Problems, the gravest first.
const (
	ProblemTwoPrimaries Problem = "two_primaries"
	ProblemSystems      Problem = "different_systems" // members that belong to different databases
	ProblemUnreachable  Problem = "unreachable"       // no member answers
	ProblemNoPrimary    Problem = "no_primary"
	ProblemNone         Problem = ""
)

// Standby is one standby of a topology.
type Standby struct {
	Member string `json:"member"`
	// LagBytes is how far its received log is behind the primary's, -1 when unknown.
	LagBytes  int64 `json:"lag_bytes"`
	Streaming bool  `json:"streaming"`
}

// Topology is what the observations of a cluster's members add up to.
type Topology struct {
	// Primary is the one member that is a primary and may be one; "" when there is none or more than one.
	Primary  string    `json:"primary,omitempty"`
	Standbys []Standby `json:"standbys,omitempty"`
	Problem  Problem   `json:"problem,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	// Fenced are members that claim to be primaries although they are marked: they are not routed to.
	Fenced []string `json:"fenced,omitempty"`
}

// Judge adds the observations up. Marked members (fenced, not rejoined) are no candidates for primary; they
// are named if they claim to be one.
func Judge(obs []Observation, marked map[string]string) Topology {
	var t Topology
	var primaries []Observation
	answering := 0
	for _, o := range obs {
		if !o.OK {
			continue
		}
		answering++
		if o.Role != RolePrimary {
			continue
		}
		if marked[o.Member] != "" {
			t.Fenced = append(t.Fenced, o.Member)
			continue
		}
		primaries = append(primaries, o)
	}
	for _, o := range obs {
		if !o.OK || o.Role != RoleStandby {
			continue
		}
		s := Standby{Member: o.Member, LagBytes: -1, Streaming: o.Streaming}
		if len(primaries) == 1 && primaries[0].Written > 0 {
			s.LagBytes = max(0, int64(primaries[0].Written)-int64(max(o.Received, o.Replayed)))
		}
		t.Standbys = append(t.Standbys, s)
	}
	switch {
	case len(primaries) > 1:
		var names []string
		for _, p := range primaries {
			names = append(names, p.Member)
		}
		t.Problem, t.Detail = ProblemTwoPrimaries, strings.Join(names, " and ")+" both claim to be the primary"
	case answering == 0:
		t.Problem, t.Detail = ProblemUnreachable, "no member answers"
	case len(primaries) == 0:
		t.Problem, t.Detail = ProblemNoPrimary, "no member that may be the primary is one"
	default:
		t.Primary = primaries[0].Member
		for _, o := range obs {
			if o.OK && marked[o.Member] == "" && o.SystemID != 0 && primaries[0].SystemID != 0 && o.SystemID != primaries[0].SystemID {
				t.Problem = ProblemSystems
				t.Detail = fmt.Sprintf("%s and %s are different database systems", t.Primary, o.Member)
			}
		}
	}
	return t
}

// Lost says whether the primary counts as lost, and why or why not. It takes two witnesses: enough failed checks
// in a row, and no standby that still streams from it. A standby that streams from another standby is no witness.
// A standby notices a silent primary after its wal_receiver_timeout (60 s unless set): so long it objects.
func Lost(primary string, obs []Observation, failures int) (bool, string) {
	var p Observation
	for _, o := range obs {
		if o.Member == primary {
			p = o
		}
	}
	switch {
	case p.Member == "":
		return false, fmt.Sprintf("%s has not been checked", primary)
	case p.OK && p.Role == RoleStandby:
		return false, fmt.Sprintf("%s answers as a standby", primary)
	case p.OK:
		return false, fmt.Sprintf("%s answers", primary)
	case p.Failures < failures:
		return false, fmt.Sprintf("%s has failed %d of %d checks", primary, p.Failures, failures)
	}
	others := map[string]bool{}
	for _, o := range obs {
		if o.Member != primary {
			others[o.Member] = true
		}
	}
	witnesses := 0
	for _, o := range obs {
		if o.Member == primary || !o.OK || o.Role != RoleStandby {
			continue
		}
		// A standby that was checked before the loss says nothing about it.
		if !o.At.After(p.DownSince) {
			return false, fmt.Sprintf("%s has not been checked since", o.Member)
		}
		if o.Streaming && !others[o.StreamsFrom] {
			return false, fmt.Sprintf("%s still streams from %s", o.Member, o.StreamsFrom)
		}
		witnesses++
	}
	return true, fmt.Sprintf("%d checks failed (%s), %d standbys have lost it too", p.Failures, p.Fault, witnesses)
}

// Choice is the standby that Choose found.
type Choice struct {
	Member string
	// LSN is its received position, Timeline its timeline before the promotion.
	LSN      LSN
	Timeline uint32
	// LagBytes is its distance to the lost primary's last known position, -1 when that is unknown.
	LagBytes int64
}

// Choose picks the most advanced standby: highest timeline, then highest received position, then the order of the
// configuration. A candidate must answer, be a standby, be unmarked, belong to the same database system and lie
// within maxLag bytes of the last position at which the old primary was seen.
func Choose(obs []Observation, from string, marked map[string]string, maxLag int64) (Choice, error) {
	var old Observation
	for _, o := range obs {
		if o.Member == from {
			old = o
		}
	}
	system := old.SystemID
	var best Choice
	var out []string
	for _, o := range obs {
		no := func(format string, args ...any) {
			out = append(out, o.Member+" "+fmt.Sprintf(format, args...))
		}
		if o.Member == from {
			continue
		}
		pos := max(o.Received, o.Replayed)
		c := Choice{Member: o.Member, LSN: pos, Timeline: o.Timeline, LagBytes: -1}
		if old.Written > 0 {
			c.LagBytes = max(0, int64(old.Written)-int64(pos))
		}
		switch {
		case !o.OK:
			no("does not answer")
			continue
		case o.Role != RoleStandby:
			no("is no standby")
			continue
		case marked[o.Member] != "":
			no("is marked: %s", marked[o.Member])
			continue
		case system != 0 && o.SystemID == 0:
			no("does not tell its system identifier")
			continue
		case system != 0 && o.SystemID != system:
			no("is another database system")
			continue
		case pos == 0:
			no("has received nothing")
			continue
		case c.LagBytes > maxLag:
			no("is %d bytes behind, over the limit of %d", c.LagBytes, maxLag)
			continue
		}
		if system == 0 {
			system = o.SystemID // the first candidate's; the others must share it
		}
		if best.Member == "" || c.Timeline > best.Timeline || c.Timeline == best.Timeline && c.LSN > best.LSN {
			best = c
		}
	}
	if best.Member == "" {
		if len(out) == 0 {
			out = append(out, "there is no other member")
		}
		return best, fmt.Errorf("no standby can be promoted: %s", strings.Join(out, "; "))
	}
	return best, nil
}
