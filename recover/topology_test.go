package recovery

import (
	"strings"
	"testing"
	"time"
)

// seen builds observations of the members a, b and c.
func seen(member string, role Role, change ...func(*Observation)) Observation {
	o := Observation{Member: member, At: time.Unix(100, 0), OK: true, Role: role, Timeline: 1, SystemID: 7, Version: 150000}
	switch role {
	case RolePrimary:
		o.Written = 1000
	case RoleStandby:
		o.Received, o.Streaming, o.StreamsFrom = 1000, true, "a"
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func down(failures int) func(*Observation) {
	return func(o *Observation) {
		o.OK, o.Failures, o.DownSince, o.Fault = false, failures, time.Unix(99, 0), "connection refused"
	}
}

func silent(o *Observation) { o.Streaming, o.StreamsFrom = false, "" }

func at(lsn LSN) func(*Observation)          { return func(o *Observation) { o.Received = lsn } }
func timeline(tli uint32) func(*Observation) { return func(o *Observation) { o.Timeline = tli } }
func system(id uint64) func(*Observation)    { return func(o *Observation) { o.SystemID = id } }
func begun(sec int64) func(*Observation) {
	return func(o *Observation) { o.At = time.Unix(sec, 0) }
}
func fromMember(m string) func(*Observation) { return func(o *Observation) { o.StreamsFrom = m } }

func TestJudge(t *testing.T) {
	tests := []struct {
		name    string
		obs     []Observation
		marked  map[string]string
		primary string
		problem Problem
		fenced  int
		lag     int64
	}{
		{name: "one primary, one standby", obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby, at(900))}, primary: "a", lag: 100},
		{name: "a standby ahead has no negative lag", obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby, at(1100))}, primary: "a"},
		{name: "two primaries", obs: []Observation{seen("a", RolePrimary), seen("b", RolePrimary)}, problem: ProblemTwoPrimaries},
		{name: "two primaries, one fenced", obs: []Observation{seen("a", RolePrimary), seen("b", RolePrimary)}, marked: map[string]string{"a": "fenced"}, primary: "b", fenced: 1},
		{name: "only a fenced primary", obs: []Observation{seen("a", RolePrimary)}, marked: map[string]string{"a": "fenced"}, problem: ProblemNoPrimary, fenced: 1},
		{name: "a primary that does not answer", obs: []Observation{seen("a", RolePrimary, down(1)), seen("b", RoleStandby)}, problem: ProblemNoPrimary, lag: -1},
		{name: "nobody answers", obs: []Observation{seen("a", RolePrimary, down(1))}, problem: ProblemUnreachable},
		{name: "nothing is known", problem: ProblemUnreachable},
		{name: "role unknown is no primary", obs: []Observation{seen("a", RoleUnknown)}, problem: ProblemNoPrimary},
		{name: "another database", obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby, system(8))}, primary: "a", problem: ProblemSystems},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Judge(tt.obs, tt.marked)
			if got.Primary != tt.primary || got.Problem != tt.problem || len(got.Fenced) != tt.fenced {
				t.Fatalf("got %+v", got)
			}
			for _, s := range got.Standbys {
				if s.LagBytes != tt.lag {
					t.Fatalf("lag %d, want %d", s.LagBytes, tt.lag)
				}
			}
		})
	}
}

func TestLost(t *testing.T) {
	tests := []struct {
		name string
		obs  []Observation
		want bool
		why  string
	}{
		{"enough failures, the standby has lost it too", []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent)}, true, "1 standbys"},
		{"enough failures, no standby answers", []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, down(1))}, true, "0 standbys"},
		{"too few failures", []Observation{seen("a", RolePrimary, down(2)), seen("b", RoleStandby, silent)}, false, "2 of 3"},
		{"it answers", []Observation{seen("a", RolePrimary)}, false, "answers"},
		{"it answers as a standby", []Observation{seen("a", RoleStandby)}, false, "as a standby"},
		{"a standby still streams", []Observation{seen("a", RolePrimary, down(9)), seen("b", RoleStandby)}, false, "still streams"},
		{"the sender is known by another name", []Observation{seen("a", RolePrimary, down(9)), seen("b", RoleStandby, fromMember("10.0.0.1:5432"))}, false, "still streams"},
		{"the sender is not shown", []Observation{seen("a", RolePrimary, down(9)), seen("b", RoleStandby, fromMember(""))}, false, "still streams"},
		{"a cascading standby is no witness", []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent), seen("c", RoleStandby, fromMember("b"))}, true, ""},
		{"the standby was last checked before the loss", []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent, begun(98))}, false, "not been checked since"},
		{"never checked", []Observation{seen("b", RoleStandby)}, false, "has not been checked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lost, why := Lost("a", tt.obs, 3)
			if lost != tt.want || !strings.Contains(why, tt.why) {
				t.Fatalf("got %v %q", lost, why)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	old := seen("a", RolePrimary, down(3)) // last seen at 1000
	tests := []struct {
		name   string
		obs    []Observation
		marked map[string]string
		want   string
		why    string
	}{
		{name: "the most advanced", obs: []Observation{old, seen("b", RoleStandby, at(950)), seen("c", RoleStandby, at(990))}, want: "c"},
		{name: "the first of equals", obs: []Observation{old, seen("b", RoleStandby), seen("c", RoleStandby)}, want: "b"},
		{name: "a later timeline before a later position", obs: []Observation{old, seen("b", RoleStandby, at(1000)), seen("c", RoleStandby, at(950), timeline(2))}, want: "c"},
		{name: "replayed counts when nothing was received", obs: []Observation{old, seen("b", RoleStandby, at(0), func(o *Observation) { o.Replayed = 960 })}, want: "b"},
		{name: "too far behind", obs: []Observation{old, seen("b", RoleStandby, at(899))}, why: "101 bytes behind"},
		{name: "just near enough", obs: []Observation{old, seen("b", RoleStandby, at(900))}, want: "b"},
		{name: "another database", obs: []Observation{old, seen("b", RoleStandby, system(8))}, why: "another database system"},
		{name: "the database is not told", obs: []Observation{old, seen("b", RoleStandby, system(0))}, why: "does not tell"},
		{name: "does not answer", obs: []Observation{old, seen("b", RoleStandby, down(1))}, why: "does not answer"},
		{name: "marked", obs: []Observation{old, seen("b", RoleStandby)}, marked: map[string]string{"b": "rotten"}, why: "rotten"},
		{name: "a primary is no candidate", obs: []Observation{old, seen("b", RolePrimary)}, why: "no standby"},
		{name: "alone", obs: []Observation{old}, why: "no other member"},
		{name: "the old primary was never seen: candidates must agree", obs: []Observation{seen("b", RoleStandby, at(900)), seen("c", RoleStandby, at(950), system(8))}, want: "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Choose(tt.obs, "a", tt.marked, 100)
			if got.Member != tt.want || (err == nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("got %+v %v", got, err)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	leads := func(m string) leader { return leader{known: true, member: m} }
	tests := []struct {
		name string
		v    view
		act  act
		to   string
	}{
		{"found", view{obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby)}}, actRoute, "a"},
		{"not before all were asked", view{members: 3, obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby)}}, actNone, ""},
		{"a member that is down was asked", view{obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby, down(1))}}, actRoute, "a"},
		{"nothing to do", view{routed: "a", obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby)}}, actNone, ""},
		{"two primaries", view{routed: "a", obs: []Observation{seen("a", RolePrimary), seen("b", RolePrimary)}}, actWithdraw, ""},
		{"two databases", view{routed: "a", obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby, system(9))}}, actWithdraw, ""},
		{"switched by somebody else", view{routed: "a", obs: []Observation{seen("a", RoleStandby), seen("b", RolePrimary)}}, actRoute, "b"},
		{"an old check of the routed member", view{routed: "a", routedAt: time.Unix(101, 0), obs: []Observation{seen("a", RoleStandby), seen("b", RoleStandby)}}, actNone, ""},
		{"the routed member became a standby", view{routed: "a", obs: []Observation{seen("a", RoleStandby), seen("b", RoleStandby)}}, actWithdraw, ""},
		{"promoted by somebody else, the old one is not given up", view{routed: "a", obs: []Observation{seen("a", RolePrimary, down(2)), seen("b", RolePrimary)}}, actNone, ""},
		{"promoted by somebody else, the old one is lost", view{routed: "a", obs: []Observation{seen("a", RolePrimary, down(3)), seen("b", RolePrimary)}}, actRoute, "b"},
		{"lost", view{routed: "a", automatic: true, obs: []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent)}}, actFailover, "a"},
		{"lost, by hand", view{routed: "a", obs: []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent)}}, actNone, ""},
		{"lost before this node started", view{last: "a", automatic: true, obs: []Observation{seen("a", RoleUnknown, down(3)), seen("b", RoleStandby, silent)}}, actFailover, "a"},
		{"lost, and nobody to promote", view{routed: "a", automatic: true, obs: []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, down(3))}}, actNone, ""},
		{"lost, and the standby is too far behind", view{routed: "a", automatic: true, obs: []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent, at(1))}}, actNone, ""},
		{"no primary was ever known", view{automatic: true, obs: []Observation{seen("a", RoleUnknown, down(3)), seen("b", RoleStandby, silent)}}, actNone, ""},
		{"a fenced member is not failed over again", view{last: "a", marked: map[string]string{"a": "x"}, automatic: true, obs: []Observation{seen("a", RoleUnknown, down(3)), seen("b", RoleStandby, silent)}}, actNone, ""},

		{"patroni: leader agrees", view{patroni: true, leader: leads("a"), obs: []Observation{seen("a", RolePrimary), seen("b", RoleStandby)}}, actRoute, "a"},
		{"patroni: leader does not agree yet", view{patroni: true, leader: leads("b"), obs: []Observation{seen("a", RoleStandby), seen("b", RoleStandby)}}, actNone, ""},
		{"patroni: no leader", view{patroni: true, leader: leads(""), routed: "a", obs: []Observation{seen("a", RolePrimary)}}, actWithdraw, ""},
		{"patroni: moved", view{patroni: true, leader: leads("b"), routed: "a", obs: []Observation{seen("a", RoleStandby), seen("b", RolePrimary)}}, actRoute, "b"},
		{"patroni: cannot be asked, the primary stands", view{patroni: true, routed: "a", obs: []Observation{seen("a", RolePrimary)}}, actNone, ""},
		{"patroni: cannot be asked, the primary is gone", view{patroni: true, routed: "a", obs: []Observation{seen("a", RoleStandby)}}, actWithdraw, ""},
		{"patroni: cannot be asked, nobody is routed", view{patroni: true, obs: []Observation{seen("a", RolePrimary)}}, actNone, ""},
		{"patroni: lost, automatic", view{patroni: true, automatic: true, leader: leads("a"), routed: "a", obs: []Observation{seen("a", RolePrimary, down(3)), seen("b", RoleStandby, silent)}}, actFailover, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.v.failures, tt.v.maxLag = 3, 100
			if tt.v.members == 0 {
				tt.v.members = len(tt.v.obs)
			}
			tt.v.topology = Judge(tt.v.obs, tt.v.marked)
			got := decide(tt.v)
			if got.act != tt.act || tt.to != "" && got.member != tt.to {
				t.Fatalf("got %+v, want %s %s", got, tt.act, tt.to)
			}
		})
	}
}
