package probe

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

// Result is the outcome of a check.
type Result string

// The results. Exposed is what an operator has to act on; Unknown is what could not be seen from here.
const (
	OK      Result = "ok"
	Exposed Result = "exposed"
	Unknown Result = "unknown"
)

// Check is one question and its answer.
type Check struct {
	ID      string `json:"check"`
	Result  Result `json:"result"`
	Seen    string `json:"seen"`             // what the endpoint did
	Meaning string `json:"meaning"`          // what follows from it
	Action  string `json:"action,omitempty"` // what to do, unless the result is ok

	// silent marks an ok that rests on a connection being closed: it only counts while the endpoint answers others.
	silent bool
}

// Report is everything that was asked of one endpoint.
type Report struct {
	Address string    `json:"address"`
	At      time.Time `json:"at"`
	Checks  []Check   `json:"checks"`
}

// Count gives the number of checks with a result.
func (r Report) Count(of Result) int {
	n := 0
	for _, c := range r.Checks {
		if c.Result == of {
			n++
		}
	}
	return n
}

// MaxTimeout bounds one check.
const MaxTimeout = 3 * time.Second

// Options say which endpoint is looked at and as whom.
type Options struct {
	// Address is host:port.
	Address string
	// ServerName is what the certificate is held against; "" means the host of Address.
	ServerName string
	// Roots are the authorities that the certificate is held against; nil means the machine's.
	Roots *x509.CertPool
	// User and Database stand in the StartupMessages; "" means a name that nobody has.
	User, Database string
	// Timeout is for each check, at most MaxTimeout, which is also the default.
	Timeout time.Duration
	// Now is the time against which certificates are judged; nil means the machine's clock.
	Now func() time.Time
}

// nobody is the user and database that are asked for when the operator names none.
const nobody = "csfproxy_probe"

// Run asks all questions, one after the other. The error says that the endpoint cannot be reached at all.
func Run(ctx context.Context, o Options) (Report, error) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return Report{}, fmt.Errorf("address %q: want host:port: %w", o.Address, err)
	}
	if o.ServerName == "" {
		o.ServerName = host
	}
	if o.User == "" {
		o.User = nobody
	}
	if o.Database == "" {
		o.Database = o.User
	}
	if o.Timeout <= 0 || o.Timeout > MaxTimeout {
		o.Timeout = MaxTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &endpoint{o}
	first, err := p.answersSSL(ctx)
	if err != nil {
		return Report{}, err
	}
	r := Report{Address: o.Address, At: o.Now().UTC()}
	for _, ask := range questions {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Checks = append(r.Checks, p.ask(ctx, ask))
	}
	// Whoever was shut out on the way sees closed connections everywhere: they prove nothing then.
	if last, err := p.answersSSL(ctx); first && (err != nil || !last) {
		for i, c := range r.Checks {
			if c.silent && c.Result == OK {
				r.Checks[i].Result = Unknown
				r.Checks[i].Meaning = "The endpoint stopped answering this address while it was probed, so a closed connection says nothing."
				r.Checks[i].Action = "Probe again from an address that has not been shut out."
			}
		}
	}
	return r, ctx.Err()
}

// question is one check: how it is named and how it is asked.
type question struct {
	id  string
	ask func(context.Context, *endpoint) Check
}

// questions stand in the order in which they are asked: what may make an endpoint shut the address out comes last.
var questions = []question{
	{"tls", askTLS},
	{"tls-1.0", askTLS10},
	{"tls-1.1", askTLS11},
	{"certificate", askCertificate},
	{"authentication", askAuthentication},
	{"plaintext", askPlaintext},
	{"gssenc", askGSSENC},
	{"startup-size", askStartupSize},
	{"tls-stuffing", askStuffing},
	{"direct-tls-alpn", askDirectTLS},
	{"proxy-v1", askProxyV1},
	{"proxy-v2", askProxyV2},
}

func (p *endpoint) ask(ctx context.Context, q question) Check {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	c := q.ask(ctx, p)
	c.ID = q.id
	if c.Result == OK {
		c.Action = ""
	}
	return c
}

// unreached is the answer of a check whose connection failed before its question was put.
func unreached(err error) Check {
	return Check{Result: Unknown, Seen: err.Error(), Meaning: "The endpoint could not be asked.", Action: "Probe again when it can be reached from here."}
}
