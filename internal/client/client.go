package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/csfproxy/csfproxy/internal/config"
)

// Client calls one node.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// Options say which node and with whose token. Empty fields are taken from the configuration file.
type Options struct {
	// Config is the node's configuration file; "" tries ./csfproxy.yaml and /etc/csfproxy/csfproxy.yaml.
	Config string
	// Address is the API's address, host:port or an URL; Token the bearer token, or @FILE.
	Address, Token string
}

// TokenVariable is the environment variable that holds a token when no option does.
const TokenVariable = "CSFPROXY_TOKEN"

// New finds the node and a token: from the options, from the environment, or from the node's own data directory, whose
// first tokens the person who set it up can read.
func New(o Options) (*Client, error) {
	c := &Client{base: o.Address, token: o.Token, http: &http.Client{}}
	if c.token == "" {
		c.token = os.Getenv(TokenVariable)
	}
	if c.base == "" || c.token == "" {
		if err := c.fromConfig(o.Config); err != nil && c.base == "" {
			return nil, err
		}
	}
	if file, ok := strings.CutPrefix(c.token, "@"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		c.token = strings.TrimSpace(string(b))
	}
	if !strings.Contains(c.base, "://") {
		c.base = "http://" + c.base
	}
	return c, nil
}

func (c *Client) fromConfig(file string) error {
	if file == "" {
		for _, f := range []string{"csfproxy.yaml", "/etc/csfproxy/csfproxy.yaml"} {
			if _, err := os.Stat(f); err == nil {
				file = f
				break
			}
		}
		if file == "" {
			return errors.New("which node? Give --config FILE (the node's configuration) or --api HOST:PORT and --token")
		}
	}
	node, err := config.LoadReach(file)
	if err != nil {
		return err
	}
	if c.base == "" {
		if node.Address == "off" {
			return fmt.Errorf("%s: api.address is off: this node cannot be asked", file)
		}
		c.base = "http://" + dialable(node.Address)
		if node.Cert != "" {
			c.base = "https://" + dialable(node.Address)
			if pem, err := os.ReadFile(node.Cert); err == nil {
				pool := x509.NewCertPool()
				pool.AppendCertsFromPEM(pem)
				c.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
			}
		}
	}
	for _, role := range []string{"admin", "operator", "auditor"} {
		if c.token != "" {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(node.DataDir, "api-token-"+role))
		if err == nil {
			c.token = strings.TrimSpace(string(b))
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("token: %w", err)
		}
	}
	return nil
}

// dialable turns an address to listen on into one to connect to.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Problem is the API's error (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	for _, e := range p.Errors {
		s += fmt.Sprintf("; %s: %s", e.Location, e.Message)
	}
	switch p.Status {
	case http.StatusUnauthorized:
		s += " (give --token @FILE or set " + TokenVariable + "; the tokens are those of api.tokens, or the files api-token-ROLE in node.data_dir)"
	case http.StatusForbidden:
		s += " (the token's role does not permit this)"
	}
	return s
}

// Do sends a request and decodes the answer into out, which may be nil or an io.Writer for the raw body.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body, out any) error {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, send)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if key, ok := ctx.Value(idempotencyKey{}).(string); ok {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the node at %s does not answer: %w (is it running?)", c.base, err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return problem(res)
	}
	switch w := out.(type) {
	case nil:
		return nil
	case io.Writer:
		_, err = io.Copy(w, res.Body)
		return err
	}
	return json.NewDecoder(res.Body).Decode(out)
}

// problem reads an answer that is an error. A body that is none leaves the status line.
func problem(res *http.Response) *Problem {
	p := &Problem{Status: res.StatusCode, Title: res.Status}
	json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(p)
	return p
}

type idempotencyKey struct{}

// WithKey makes the request repeatable: a second one with the key gets the first one's answer.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// All reads every page of a list.
func All[T any](ctx context.Context, c *Client, path string, query url.Values, most int) ([]T, error) {
	var out []T
	if query == nil {
		query = url.Values{}
	}
	for {
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}
		query.Set("limit", fmt.Sprint(min(1000, max(1, most-len(out)))))
		if err := c.Do(ctx, http.MethodGet, path, query, nil, &page); err != nil {
			return out, err
		}
		out = append(out, page.Items...)
		if page.Next == "" || len(out) >= most {
			return out, nil
		}
		query.Set("cursor", page.Next)
	}
}
