package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a certificate authority that lives for one test.
type authority struct {
	*pki.Authority
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a, err := pki.NewAuthority("test authority", pki.Within(time.Now().Add(-48*time.Hour), time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := a.Write(file); err != nil {
		t.Fatal(err)
	}
	return &authority{a, file}
}

// leaf describes a certificate to issue.
type leaf struct {
	names   []string
	ips     []string
	expired bool
	client  bool
}

// issue makes a certificate and gives it with the files that hold it.
func (a *authority) issue(t *testing.T, l leaf) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	p, err := a.Issue("leaf", func(c *x509.Certificate) {
		c.NotBefore, c.DNSNames, c.IPAddresses = time.Now().Add(-24*time.Hour), l.names, nil
		for _, ip := range l.ips {
			c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
		}
		if l.expired {
			c.NotAfter = time.Now().Add(-time.Hour)
		}
		if l.client {
			pki.ForClient(c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := p.Write(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return p.Certificate, certFile, keyFile
}

// serve runs one goroutine per connection on a loopback address until the test ends, and waits for all of them.
func serve(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); handle(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// recorder keeps events.
type recorder struct {
	mu     sync.Mutex
	events []csf.Event
}

func (r *recorder) Record(e csf.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) all() []csf.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]csf.Event(nil), r.events...)
}

func plain(addrs ...string) config.Cluster {
	c := config.Cluster{Name: "orders", TLS: config.UpstreamTLS{Mode: "disable"}, Connect: config.Duration(5 * time.Second)}
	for _, a := range addrs {
		c.Members = append(c.Members, config.Member{Address: a})
	}
	return c
}

func verified(ca string, addrs ...string) config.Cluster {
	c := plain(addrs...)
	c.TLS = config.UpstreamTLS{Mode: "verify-full", CA: ca}
	return c
}

func mustNew(t *testing.T, cfg config.Cluster, opts Options) *Cluster {
	t.Helper()
	c, err := New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
