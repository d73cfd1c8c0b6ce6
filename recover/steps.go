package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Bounds within the steps.
const (
	lookEvery      = 20 * time.Millisecond
	lookTimeout    = time.Second
	fenceCommand   = 20 * time.Second
	choosePatience = time.Second
)

// effects are what the types of steps do. Each may be repeated: after a restart, the step that was interrupted runs
// again. In a dry run each only reads and tells what it would do, or why it would refuse.
var effects = map[string]func(*execution, context.Context) (string, error){
	stepConfirm: (*execution).confirm,
	stepReady:   (*execution).ready,
	stepFence:   (*execution).fence,
	stepChoose:  (*execution).choose,
	stepCatchup: (*execution).catchup,
	stepPromote: (*execution).promote,
	stepAsk:     (*execution).ask,
	stepVerify:  (*execution).verify,
	stepReroute: (*execution).reroute,
}

// primary gives the member that the run is about: the routed one, or the latest that was.
func (x *execution) primary() (string, error) {
	if x.plan.From != "" {
		return x.plan.From, nil
	}
	if p := x.cluster.up.State().Primary; p != "" {
		return p, nil
	}
	if p := x.cluster.remembered().Last; p != "" {
		return p, nil
	}
	return "", errors.New("this node has never known a primary of the cluster")
}

// confirm waits until the primary counts as lost, and refuses as soon as it answers.
func (x *execution) confirm(ctx context.Context) (string, error) {
	from, err := x.primary()
	if err != nil {
		return "", err
	}
	var why string
	err = pollUntil(ctx, lookEvery, func() (bool, error) {
		obs := x.cluster.observations()
		var lost bool
		lost, why = Lost(from, obs, x.cluster.failures)
		if lost {
			o := find(obs, from)
			x.plan.From, x.plan.Since = from, o.DownSince
			return true, nil
		}
		err := fmt.Errorf("not confirmed: %s", why)
		o := find(obs, from)
		if o.OK {
			err = fmt.Errorf("%w (a planned change is the runbook switchover)", err)
		}
		return o.OK || x.dry(), err
	})
	if x.dry() {
		x.plan.From = from // so that the steps after it have something to tell
	}
	return why, err
}

// ready checks that a planned switch can begin: one primary, and a standby that streams.
func (x *execution) ready(context.Context) (string, error) {
	s := x.cluster.remembered()
	t := Judge(x.cluster.observations(), s.Marked)
	if t.Primary == "" || t.Problem != ProblemNone {
		return "", fmt.Errorf("the cluster has no undisputed primary (%s): %s", t.Problem, t.Detail)
	}
	x.plan.From, x.plan.Since = t.Primary, x.engine.clock()
	for _, sb := range t.Standbys {
		if sb.Streaming && s.Marked[sb.Member] == "" {
			return fmt.Sprintf("%s serves, %s streams, %d bytes behind", t.Primary, sb.Member, sb.LagBytes), nil
		}
	}
	return "", errors.New("no standby streams from the primary")
}

// fence begins the next term and takes the old primary out of routing. The term and the mark are on disk before
// anything else; its sessions have ended when routing returns.
func (x *execution) fence(ctx context.Context) (string, error) {
	c, from := x.cluster, x.plan.From
	term := x.plan.Term
	if s := c.remembered(); term == 0 || s.Term != term || s.Primary != "" { // else an interrupted fence is repeated
		term = max(s.Term, c.up.Term()) + 1
	}
	if x.dry() {
		return fmt.Sprintf("would end %s's sessions, begin term %d and keep it from routing%s", from, term, x.commandText()), nil
	}
	x.plan.Term = term
	builtin := c.patroni == nil // Patroni rejoins a former leader by itself, and may choose it again
	if _, err := c.remember(func(s *termState) {
		s.Term, s.Primary, s.Last = term, "", from
		if builtin {
			s.Marked[from] = "fenced by run " + x.identity().ID
		}
	}); err != nil {
		return "", err
	}
	if err := c.up.Fence(term); err != nil {
		return "", err
	}
	if builtin {
		if err := c.up.MarkBad(from, c.remembered().Marked[from]); err != nil {
			return "", err
		}
	}
	detail := fmt.Sprintf("term %d", term)
	if o := find(c.observations(), from); o.OK {
		detail += "; " + x.quiet(ctx, from)
	}
	if len(c.cfg.FenceCommand) > 0 && builtin {
		if err := runFenceCommand(ctx, c.cfg.FenceCommand, from); err != nil {
			return "", err
		}
		detail += "; the fence command succeeded"
	}
	return detail, nil
}

// quiet ends sessions on an old primary that still answers, and notes how far it has written.
func (x *execution) quiet(ctx context.Context, from string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*lookTimeout)
	defer cancel()
	n, err := x.cluster.srv.Terminate(ctx, from)
	if o := x.cluster.srv.Observe(ctx, from); o.OK && o.Role == RolePrimary {
		x.plan.Target = max(x.plan.Target, o.Written)
	}
	if err != nil {
		return "its remaining sessions could not be ended: " + faultOf(err)
	}
	return fmt.Sprintf("%d remaining sessions ended on it, written up to %v", n, x.plan.Target)
}

func (x *execution) commandText() string {
	if len(x.cluster.cfg.FenceCommand) == 0 || x.cluster.patroni != nil {
		return ""
	}
	return "; would run " + x.cluster.cfg.FenceCommand[0]
}

// runFenceCommand runs the operator's command. It gets the member's address and a PATH, and nothing else of this
// process's environment, which may hold secrets.
func runFenceCommand(ctx context.Context, argv []string, member string) error {
	ctx, cancel := context.WithTimeout(ctx, fenceCommand)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"CSFPROXY_MEMBER=" + member, "PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("the fence command failed: %w", err)
	}
	return nil
}

// look observes all members but one at the same time, now.
func (x *execution) look(ctx context.Context, except string) []Observation {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	known := x.cluster.observations()
	out := make([]Observation, 0, len(known))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, m := range x.cluster.up.Members() {
		if m == except {
			if o := find(known, m); o.Member != "" {
				mu.Lock()
				out = append(out, o)
				mu.Unlock()
			}
			continue
		}
		wg.Go(func() {
			o := x.cluster.srv.Observe(ctx, m).merge(find(known, m))
			mu.Lock()
			defer mu.Unlock()
			out = append(out, o)
		})
	}
	wg.Wait()
	order := x.cluster.up.Members()
	slices.SortFunc(out, func(a, b Observation) int {
		return slices.Index(order, a.Member) - slices.Index(order, b.Member)
	})
	return out
}

// choose finds the most advanced standby. It gives one that is not ready a moment.
func (x *execution) choose(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, choosePatience)
	defer cancel()
	var chosen Choice
	err := pollUntil(ctx, 5*lookEvery, func() (bool, error) {
		obs, marked := x.look(ctx, x.plan.From), x.cluster.remembered().Marked
		for _, o := range obs {
			if o.OK && o.Role == RolePrimary && o.Member != x.plan.From && marked[o.Member] == "" {
				return true, fmt.Errorf("%s is a primary already: somebody else has promoted it", o.Member)
			}
		}
		var err error
		chosen, err = Choose(obs, x.plan.From, marked, x.cluster.maxLag)
		return err == nil || x.dry(), err
	})
	if err != nil {
		return "", err
	}
	x.plan.To, x.plan.Timeline = chosen.Member, chosen.Timeline
	lag := "lag unknown"
	if chosen.LagBytes >= 0 {
		lag = fmt.Sprintf("%d bytes behind the last known position", chosen.LagBytes)
	}
	return fmt.Sprintf("%s at %v on timeline %d, %s", chosen.Member, chosen.LSN, chosen.Timeline, lag), nil
}

// catchup waits until the chosen standby has received everything that the old primary had written.
func (x *execution) catchup(ctx context.Context) (string, error) {
	if x.plan.To == "" {
		return "", errors.New("no standby was chosen")
	}
	if x.dry() {
		return fmt.Sprintf("would wait until %s has received everything", x.plan.To), nil
	}
	if x.plan.Target == 0 {
		return "", fmt.Errorf("it is not known how far %s has written", x.plan.From)
	}
	var o Observation
	err := pollUntil(ctx, lookEvery, func() (bool, error) {
		o = x.cluster.srv.Observe(ctx, x.plan.To)
		if !o.OK {
			return false, fmt.Errorf("%s does not answer: %s", x.plan.To, o.Fault)
		}
		if max(o.Received, o.Replayed) < x.plan.Target {
			return false, fmt.Errorf("%s is at %v, %v is needed", x.plan.To, max(o.Received, o.Replayed), x.plan.Target)
		}
		return true, nil
	})
	return fmt.Sprintf("%s has received %v", x.plan.To, max(o.Received, o.Replayed)), err
}

// promote makes the chosen standby a primary.
func (x *execution) promote(ctx context.Context) (string, error) {
	if x.plan.To == "" {
		return "", errors.New("no standby was chosen")
	}
	if x.dry() {
		return "would promote " + x.plan.To, nil
	}
	if err := x.cluster.srv.Promote(ctx, x.plan.To); err != nil {
		return "", err
	}
	return x.plan.To + " has left recovery", nil
}

// verify looks at the new primary before anybody is sent to it.
func (x *execution) verify(ctx context.Context) (string, error) {
	c, to := x.cluster, x.plan.To
	if x.dry() {
		return "would check its role, its timeline and one commit", nil
	}
	if to == "" {
		return "", errors.New("no member was promoted")
	}
	var o Observation
	err := pollUntil(ctx, lookEvery, func() (bool, error) {
		o = c.srv.Observe(ctx, to)
		switch {
		case !o.OK:
			return false, fmt.Errorf("%s does not answer: %s", to, o.Fault)
		case o.Role != RolePrimary:
			return false, fmt.Errorf("%s answers as a %s", to, o.Role)
		case o.Timeline != 0 && o.Timeline <= x.plan.Timeline:
			return false, fmt.Errorf("%s is on timeline %d, it was on %d before", to, o.Timeline, x.plan.Timeline)
		}
		if err := c.srv.WriteProbe(ctx, to); err != nil {
			return false, err
		}
		return true, nil
	})
	if err != nil {
		return "", err
	}
	c.observed(o)
	obs := c.observations()
	if t := Judge(obs, c.remembered().Marked); t.Problem == ProblemTwoPrimaries {
		return "", errors.New(t.Detail)
	}
	return fmt.Sprintf("%s is a primary on timeline %d and commits", to, o.Timeline), nil
}

// reroute sends sessions to the new primary under the term that the fence began.
func (x *execution) reroute(context.Context) (string, error) {
	if x.dry() {
		return "would route to " + orUnknown(x.plan.To), nil
	}
	if s := x.cluster.remembered(); s.Term != x.plan.Term || s.Primary != "" && s.Primary != x.plan.To {
		return "", fmt.Errorf("the cluster went on to term %d while this run held term %d", s.Term, x.plan.Term)
	}
	began := x.engine.clock()
	if err := x.cluster.route(x.plan.To); err != nil {
		return "", err
	}
	run := x.identity()
	now := x.engine.clock()
	since := x.plan.Since
	if since.IsZero() {
		since = run.Started
	}
	facts := csf.Facts{"from": x.plan.From, "to": x.plan.To, "term": x.plan.Term, "trigger": run.Trigger, "run": run.ID,
		"ms": now.Sub(since).Milliseconds(), "reroute_ms": now.Sub(began).Milliseconds()}
	for step, ms := range x.plan.Steps {
		facts[step+"_ms"] = ms
	}
	if _, ok := x.plan.Steps[stepConfirm]; ok { // the confirmation began with the first failed check
		facts["confirm_ms"] = run.Started.Sub(since).Milliseconds() + x.plan.Steps[stepConfirm]
	}
	x.engine.record(csf.Event{Kind: csf.FailoverSwitched, Cluster: run.Cluster, Upstream: x.plan.To, Facts: facts})
	return fmt.Sprintf("%s under term %d", x.plan.To, x.plan.Term), nil
}

func (x *execution) dry() bool { return x.identity().DryRun }

func orUnknown(member string) string {
	if strings.TrimSpace(member) == "" {
		return "nobody, because no member was chosen"
	}
	return member
}

func find(obs []Observation, member string) Observation {
	for _, o := range obs {
		if o.Member == member {
			return o
		}
	}
	return Observation{}
}
