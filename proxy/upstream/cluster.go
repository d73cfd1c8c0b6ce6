package upstream

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
)

// defaultConnect bounds one connection attempt, and the wait for a primary, when clusters.connect_timeout is 0.
const defaultConnect = 5 * time.Second

// managerNone is the failover manager under which a single member is the primary without being asked.
const managerNone = "none"

// Recorder takes events. It must not block for long: it is called while a connection is made.
type Recorder interface {
	Record(csf.Event)
}

// Options are what a Cluster takes from outside.
type Options struct {
	// Recorder takes changes of the members' TLS identity and marks; nil records nothing.
	Recorder Recorder
	// Clock gives the time of events; nil is time.Now.
	Clock func() time.Time
	// Wait bounds how long Dial waits for a primary while there is none or the cluster is paused.
	// 0 is the cluster's connect timeout; negative does not wait.
	Wait time.Duration
}

// Cluster is a set of PostgreSQL servers of which at most one is routed to. Its methods may be called from
// any goroutine.
type Cluster struct {
	name     string
	recorder Recorder
	clock    func() time.Time
	wait     time.Duration

	settings atomic.Pointer[settings] // what Reload swaps
	route    atomic.Pointer[Route]    // nil: no primary, or paused

	switching sync.Mutex // serialises changes of the route with their notifications
	mu        sync.Mutex // guards what follows
	term      uint64     // the highest term seen; never falls
	holder    string     // the member that the term belongs to, "" while nobody has held it
	primary   string     // routed member, "" while fenced
	paused    bool
	bad       map[string]string // member → why it must not be routed to
	suspects  map[string]Suspicion
	identity  map[string]string // member → last TLS identity or fault that was recorded
	subs      map[int]func(old, new Route)
	nextSub   int
	changed   chan struct{} // closed and replaced at each change of the route
}

// settings are one loaded configuration: immutable once stored.
type settings struct {
	members []string
	tls     *tlsSettings // nil: plaintext by configuration
	connect time.Duration
	minor   uint16
}

// New loads the cluster's configuration, reading its certificate files. With manager "none" and one member, that
// member is the primary at term 1; otherwise there is no primary until SetPrimary.
func New(cfg config.Cluster, opts Options) (*Cluster, error) {
	s, err := load(cfg)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		name:     cfg.Name,
		recorder: opts.Recorder,
		clock:    opts.Clock,
		wait:     opts.Wait,
		bad:      map[string]string{},
		suspects: map[string]Suspicion{},
		identity: map[string]string{},
		subs:     map[int]func(old, new Route){},
		changed:  make(chan struct{}),
	}
	if c.clock == nil {
		c.clock = time.Now
	}
	c.settings.Store(s)
	if cfg.Failover.Manager == managerNone && len(s.members) == 1 {
		if err := c.SetPrimary(s.members[0], 1); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Check says whether Reload with this configuration would succeed, and changes nothing.
func Check(cfg config.Cluster) error {
	_, err := load(cfg)
	return err
}

// Reload reads the configuration and its certificate files again. Connections that are open stay; new ones use the
// new settings. On an error nothing changes. A primary that is no longer a member is withdrawn.
func (c *Cluster) Reload(cfg config.Cluster) error {
	if cfg.Name != c.name {
		return fmt.Errorf("cluster %s cannot become %s", c.name, cfg.Name)
	}
	s, err := load(cfg)
	if err != nil {
		return err
	}
	c.settings.Store(s)
	return c.change(func() error {
		if c.primary != "" && !slices.Contains(s.members, c.primary) {
			c.primary = ""
		}
		return nil
	})
}

// Name is the cluster's name in the configuration.
func (c *Cluster) Name() string { return c.name }

// Minor is the minor version of protocol 3 that members are asked for: 0 or 2.
func (c *Cluster) Minor() uint16 { return c.settings.Load().minor }

// Members gives the configured addresses in the order of the file.
func (c *Cluster) Members() []string {
	return append([]string(nil), c.settings.Load().members...)
}

// load checks what can fail and builds the immutable settings.
func load(cfg config.Cluster) (*settings, error) {
	if len(cfg.Members) == 0 {
		return nil, fmt.Errorf("cluster %s has no members", cfg.Name)
	}
	s := &settings{connect: cfg.Connect.D(), minor: 2}
	if cfg.Protocol == "3.0" {
		s.minor = 0
	}
	if s.connect <= 0 {
		s.connect = defaultConnect
	}
	var errs []error
	for _, m := range cfg.Members {
		host, port, err := net.SplitHostPort(m.Address)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("cluster %s: member %q: %w", cfg.Name, m.Address, err))
		case host == "" || port == "":
			errs = append(errs, fmt.Errorf("cluster %s: member %q: host and port are both needed", cfg.Name, m.Address))
		case slices.Contains(s.members, m.Address):
			errs = append(errs, fmt.Errorf("cluster %s: member %q is listed twice", cfg.Name, m.Address))
		default:
			s.members = append(s.members, m.Address)
		}
	}
	t, err := loadTLS(cfg.TLS)
	if err != nil {
		errs = append(errs, fmt.Errorf("cluster %s: tls: %w", cfg.Name, err))
	}
	s.tls = t
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}
