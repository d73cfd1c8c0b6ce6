package respond

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/csfproxy/csfproxy/csf"
)

// Errors of Apply and Lift.
var (
	// ErrExempt: the scope touches a network that respond.exempt names.
	ErrExempt = errors.New("the network is exempt from containment: respond.exempt of the configuration names it")
	// ErrTooMany: the bound on containments is reached; contain a wider network, or lift some.
	ErrTooMany = errors.New("too many containments are in force: contain a wider network, or lift some")
	// ErrNoContainment: no containment has the id.
	ErrNoContainment = errors.New("there is no containment of that id in force: csfproxy contain list")
	// ErrNotSaved: the containment is in force and will not outlive a restart, or a lifted one will come back with it.
	ErrNotSaved = errors.New("the containments could not be saved")
)

// Containment is one that is or was in force.
type Containment struct {
	ID      string    `json:"id"`
	Kind    ScopeKind `json:"scope"`
	Subject string    `json:"subject"`
	By      string    `json:"by"`
	Reason  string    `json:"reason"`
	// Finding is the id of the finding that it answers, "" when a person ordered it.
	Finding string    `json:"finding,omitempty"`
	Since   time.Time `json:"since"`
	// Expires is when it ends by itself; zero: when it is lifted.
	Expires time.Time `json:"expires,omitzero"`
	// Ended counts the sessions that it ended.
	Ended int `json:"sessions_ended,omitempty"`

	scope Scope
}

func (c Containment) expired(now time.Time) bool {
	return !c.Expires.IsZero() && !now.Before(c.Expires)
}

// Request orders a containment.
type Request struct {
	Scope  Scope
	By     string
	Reason string
	// For is how long it lasts, at most a year; 0: until it is lifted.
	For     time.Duration
	Finding string
	// Since is when the cause was seen, for the time to act; zero: now.
	Since time.Time
}

// SessionView is what a containment needs to know of a live session.
type SessionView struct {
	ID, Identity, Database string
	Client                 netip.Addr
}

// SessionEnder ends the live sessions that match and says how many; match must be quick. It is called without locks.
type SessionEnder interface {
	EndSessions(match func(SessionView) bool, reason csf.Reason) int
}

// Recorder takes events.
type Recorder interface {
	Record(csf.Event)
}

// Config is what containments need. Recorder and Sessions may be nil.
type Config struct {
	// Dir is the directory of the file that keeps containments over a restart; "" keeps them in memory only.
	Dir string
	// Exempt networks are never contained, neither by rule nor by hand.
	Exempt   []netip.Prefix
	Recorder Recorder
	Sessions SessionEnder
	// Clock gives the time; default time.Now. NewID gives identifiers; default UUID version 7.
	Clock func() time.Time
	NewID func() string
	// Max is how many may be in force at once; default 10000.
	Max int
}

// Containments are those in force. Check may be called on every connection: it takes no lock.
type Containments struct {
	cfg    Config
	exempt atomic.Pointer[[]netip.Prefix]
	index  atomic.Pointer[index]

	mu   sync.Mutex // guards byID and the file
	byID map[string]Containment
}

// index is an immutable view for Check.
type index struct {
	names    map[Scope]Containment
	networks map[netip.Prefix]Containment
	bits     [2][]int // the prefix lengths in use, IPv4 and IPv6, longest first
}

// New reads what was in force before a restart. A file that cannot be read is an error: to go on without it would let
// everybody in who was shut out.
func New(cfg Config) (*Containments, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.NewID == nil {
		cfg.NewID = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	if cfg.Max <= 0 {
		cfg.Max = 10_000
	}
	c := &Containments{cfg: cfg, byID: map[string]Containment{}}
	c.SetExempt(cfg.Exempt)
	list, err := readSnapshot(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		c.byID[e.ID] = e
	}
	c.publish()
	return c, nil
}

// SetExempt replaces the exempt networks, as a reload does. What is already contained stays so until it is lifted.
func (c *Containments) SetExempt(networks []netip.Prefix) {
	list := slices.Clone(networks)
	c.exempt.Store(&list)
}

// Check says whether a client address, an identity or a database is shut out at the time, and by what. Any of the three
// may be left empty where it is not known yet. The reason is csf.ReasonContained when it is.
func (c *Containments) Check(now time.Time, source netip.Addr, identity, database string) (csf.Reason, Containment, bool) {
	ix := c.index.Load()
	if len(ix.names) == 0 && len(ix.networks) == 0 {
		return "", Containment{}, false
	}
	for _, s := range [...]Scope{{Kind: ScopeIdentity, Name: identity}, {Kind: ScopeDatabase, Name: database}} {
		if e, ok := ix.names[s]; ok && s.Name != "" && !e.expired(now) {
			return csf.ReasonContained, e, true
		}
	}
	if source.IsValid() && len(ix.networks) > 0 {
		a := source.Unmap().WithZone("")
		for _, bits := range ix.bits[family(a)] {
			p, err := a.Prefix(bits)
			if err != nil {
				continue
			}
			if e, ok := ix.networks[p]; ok && !e.expired(now) {
				return csf.ReasonContained, e, true
			}
		}
	}
	return "", Containment{}, false
}

// lasts says whether a containment of exactly that scope goes on for at least d.
func (c *Containments) lasts(s Scope, d time.Duration) bool {
	ix := c.index.Load()
	e, ok := ix.names[s]
	if s.Kind == ScopeSource {
		e, ok = ix.networks[s.Network]
	}
	return ok && !e.expired(c.cfg.Clock().Add(d))
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Apply puts a containment in force, ends the sessions that it covers, saves it and records it, in that order. A scope
// that is contained already keeps its id; its end moves when the new one is later. With ErrNotSaved it is in force.
func (c *Containments) Apply(r Request) (Containment, error) {
	now := c.cfg.Clock()
	if r.Since.IsZero() {
		r.Since = now
	}
	if !r.Scope.valid() {
		return Containment{}, errors.New("a containment needs a scope: a source, an identity or a database")
	}
	if r.For < 0 || r.For > 366*24*time.Hour {
		return Containment{}, fmt.Errorf("a containment of %s: give at most 8784h, or 0 for until it is lifted", r.For)
	}
	if r.Scope.Kind == ScopeSource {
		for _, p := range *c.exempt.Load() {
			if p.Overlaps(r.Scope.Network) {
				return Containment{}, fmt.Errorf("%s: %w", r.Scope.Subject(), ErrExempt)
			}
		}
	}
	e, extended, err := c.insert(r, now)
	if err != nil {
		return Containment{}, err
	}
	ended := 0
	if c.cfg.Sessions != nil {
		ended = c.cfg.Sessions.EndSessions(func(v SessionView) bool { return covers(e.scope, v) }, csf.ReasonContained)
		e = c.count(e, ended)
	}
	act := c.cfg.Clock().Sub(r.Since)
	saveErr := c.save()
	facts := csf.Facts{
		"containment": e.ID, "scope": string(e.Kind), "subject": e.Subject, "by": r.By, "reason": r.Reason,
		"act_ms": max(act.Milliseconds(), 0), "sessions_ended": ended, "extended": extended, "saved": saveErr == nil,
	}
	if r.Finding != "" {
		facts["finding"] = r.Finding
	}
	if !e.Expires.IsZero() {
		facts["expires"] = e.Expires.UTC().Format(time.RFC3339)
	}
	c.record(csf.ContainmentApplied, e, facts)
	return e, saveErr
}

// count adds ended sessions to a containment; one that was lifted meanwhile keeps them for its order's answer alone.
func (c *Containments) count(e Containment, ended int) Containment {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.byID[e.ID]; ok {
		e = now
	}
	e.Ended += ended
	if _, ok := c.byID[e.ID]; ok {
		c.byID[e.ID] = e
	}
	return e
}

// insert puts the containment in force.
func (c *Containments) insert(r Request, now time.Time) (e Containment, extended bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var expires time.Time
	if r.For > 0 {
		expires = now.Add(r.For).UTC()
	}
	for _, old := range c.byID {
		if old.scope != r.Scope || old.expired(now) {
			continue
		}
		if !old.Expires.IsZero() && (expires.IsZero() || expires.After(old.Expires)) {
			old.Expires = expires
			c.byID[old.ID] = old
			c.publish()
		}
		return old, true, nil
	}
	if len(c.byID) >= c.cfg.Max {
		return Containment{}, false, ErrTooMany
	}
	e = Containment{
		ID: c.cfg.NewID(), Kind: r.Scope.Kind, Subject: r.Scope.Subject(), By: r.By, Reason: r.Reason, Finding: r.Finding,
		Since: now.UTC(), Expires: expires, scope: r.Scope,
	}
	c.byID[e.ID] = e
	c.publish()
	return e, false, nil
}

func covers(s Scope, v SessionView) bool {
	switch s.Kind {
	case ScopeSource:
		return v.Client.IsValid() && s.Network.Contains(v.Client.Unmap().WithZone(""))
	case ScopeIdentity:
		return v.Identity == s.Name
	}
	return v.Database == s.Name
}

// Lift ends a containment before its time. With ErrNotSaved it is lifted.
func (c *Containments) Lift(id, by, reason string) error {
	c.mu.Lock()
	e, ok := c.byID[id]
	if ok {
		delete(c.byID, id)
		c.publish()
	}
	c.mu.Unlock()
	if !ok {
		return ErrNoContainment
	}
	err := c.save()
	c.recordLifted(e, by, reason)
	return err
}

// List gives the containments in force, the oldest first.
func (c *Containments) List() []Containment {
	now := c.cfg.Clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Containment
	for _, e := range c.byID {
		if !e.expired(now) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Containment) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Run lifts what has expired until the context ends. An expired containment shuts nobody out even before Run sees it.
// A file that cannot be written is tried again with the next change.
func (c *Containments) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.expire()
		}
	}
}

func (c *Containments) expire() {
	now := c.cfg.Clock()
	c.mu.Lock()
	var gone []Containment
	for id, e := range c.byID {
		if e.expired(now) {
			gone = append(gone, e)
			delete(c.byID, id)
		}
	}
	if len(gone) > 0 {
		c.publish()
	}
	c.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	saved := c.save() == nil
	for _, e := range gone {
		c.record(csf.ContainmentLifted, e, csf.Facts{
			"containment": e.ID, "scope": string(e.Kind), "subject": e.Subject, "by": "expiry", "reason": "expired", "saved": saved,
		})
	}
}

func (c *Containments) recordLifted(e Containment, by, reason string) {
	c.record(csf.ContainmentLifted, e, csf.Facts{"containment": e.ID, "scope": string(e.Kind), "subject": e.Subject, "by": by, "reason": reason})
}

func (c *Containments) record(k csf.Kind, e Containment, facts csf.Facts) {
	if c.cfg.Recorder == nil {
		return
	}
	ev := csf.Event{Time: c.cfg.Clock().UTC(), Kind: k, Facts: facts}
	if e.Kind == ScopeIdentity {
		ev.Identity = e.Subject
	}
	c.cfg.Recorder.Record(ev)
}

// publish makes the view for Check; mu is held, or nobody else knows c yet.
func (c *Containments) publish() {
	ix := &index{names: map[Scope]Containment{}, networks: map[netip.Prefix]Containment{}}
	lengths := [2]map[int]bool{{}, {}}
	for _, e := range c.byID {
		if e.Kind != ScopeSource {
			ix.names[e.scope] = e
			continue
		}
		ix.networks[e.scope.Network] = e
		lengths[family(e.scope.Network.Addr())][e.scope.Network.Bits()] = true
	}
	for i := range lengths {
		ix.bits[i] = slices.SortedFunc(maps.Keys(lengths[i]), func(a, b int) int { return b - a })
	}
	c.index.Store(ix)
}

// save writes what is in force.
func (c *Containments) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Collect(maps.Values(c.byID))
	slices.SortFunc(list, func(a, b Containment) int { return cmp.Compare(a.ID, b.ID) })
	if err := writeSnapshot(c.cfg.Dir, list); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSaved, err)
	}
	return nil
}
