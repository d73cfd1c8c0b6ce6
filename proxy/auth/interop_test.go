package auth

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"

	"github.com/csfproxy/csfproxy/csf"
)

// TestLibraryClient: another implementation of SCRAM logs in to ours, and checks our signature.
func TestLibraryClient(t *testing.T) {
	for _, password := range []string{"secret", "Pässwört", "\u2168 a\u00a0b"} {
		v := testVerifier(t, password)
		result := make(chan error, 1)
		c := pipe(t, func(p *streamConn) { result <- libraryClient(p, password) })
		if _, err := ServeSCRAM(c, v, ServerOptions{Rand: rand.Reader}); err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		if err := <-result; err != nil {
			t.Errorf("%q: the client: %v", password, err)
		}
	}
}

func libraryClient(p *streamConn, password string) error {
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return err
	}
	conv := client.NewConversation()
	if _, _, err := p.Receive(MaxSASL); err != nil {
		return err
	}
	text, err := conv.Step("")
	if err != nil {
		return err
	}
	msg := saslInitialResponse([]byte(text))
	for !conv.Done() {
		if err := p.Send(msg); err != nil {
			return err
		}
		_, body, err := p.Receive(MaxSASL)
		if err != nil {
			return err
		}
		if text, err = conv.Step(string(body[4:])); err != nil {
			return err
		}
		msg = message('p', []byte(text))
	}
	if !conv.Valid() {
		return errors.New("the server is not authenticated")
	}
	return nil
}

// TestLibraryServer: ours logs in to another implementation's server, by password and by keys.
func TestLibraryServer(t *testing.T) {
	const password, iterations = "secret", 4096
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	salt := "0123456789abcdef"
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: salt, Iters: iterations})
	if err != nil {
		t.Fatal(err)
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		t.Fatal(err)
	}
	k, err := deriveKeys(password, []byte(salt), iterations)
	if err != nil {
		t.Fatal(err)
	}
	for name, cred := range map[string]Credential{"password": {Password: password}, "keys": {ClientKey: k.client, ServerKey: k.server}} {
		c := pipe(t, func(p *streamConn) {
			conv := server.NewConversation()
			p.Send(authenticationSASL())
			for code := uint32(authSASLContinue); !conv.Done(); code++ {
				_, body, err := p.Receive(MaxSASL)
				if err != nil {
					return
				}
				if code == authSASLContinue {
					_, body, _, _ = parseInitialResponse(body)
				}
				text, err := conv.Step(string(body))
				if err != nil {
					return
				}
				p.Send(authentication(code, []byte(text)))
			}
			p.Send(authentication(authOk, nil))
		})
		if _, err := Login(c, LoginOptions{Credential: cred, Methods: Floor, Rand: rand.Reader}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fakeServer accepts connections of pgconn and runs authenticate after each StartupMessage.
func fakeServer(t *testing.T, authenticate func(c *streamConn, user string) error) *pgconn.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			serveOne(conn, authenticate)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	config, err := pgconn.ParseConfig("postgres://app:secret@" + listener.Addr().String() + "/db?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func serveOne(conn net.Conn, authenticate func(*streamConn, string) error) {
	backend := pgproto3.NewBackend(conn, conn)
	startup, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	s, ok := startup.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	c := &streamConn{r: conn, w: conn}
	if err := authenticate(c, s.Parameters["user"]); err != nil {
		var e *Error
		if errors.As(err, &e) && e.SQLSTATE != "" {
			c.Send(message('E', []byte("SFATAL\x00VFATAL\x00C"+e.SQLSTATE+"\x00M"+e.Message+"\x00\x00")))
		}
		return
	}
	c.Send(authentication(authOk, nil))
	c.Send(message('Z', []byte("I")))
	c.Receive(10) // Terminate
}

// TestPgconnClient: pgx's client logs in to our server, and gets PostgreSQL's error for a wrong password.
func TestPgconnClient(t *testing.T) {
	v := testVerifier(t, "secret")
	config := fakeServer(t, func(c *streamConn, user string) error {
		verifier := v
		if user != "app" {
			verifier = MockVerifier([]byte("node"), user, MinIterations)
		}
		_, err := ServeSCRAM(c, verifier, ServerOptions{Rand: rand.Reader})
		return err
	})
	for _, tt := range []struct{ user, password, sqlstate string }{
		{"app", "secret", ""}, {"app", "wrong", "28P01"}, {"nobody", "secret", "28P01"},
	} {
		err := tryLogin(t, config, tt.user, tt.password)
		var e *pgconn.PgError
		if errors.As(err, &e) != (tt.sqlstate != "") || e != nil && e.Code != tt.sqlstate || e == nil && err != nil {
			t.Errorf("%s/%s: %v", tt.user, tt.password, err)
		}
	}
}

// startup is the StartupMessage of protocol 3.0.
func startup(user, database string) []byte {
	body := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// dialServer connects to a server and sends a StartupMessage.
func dialServer(t testing.TB, address, user string) (*streamConn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = conn.Write(startup(user, "postgres"))
	return &streamConn{r: conn, w: conn}, err
}

// begun reads what follows AuthenticationOk to the first ReadyForQuery.
func begun(c *streamConn) error {
	for {
		typ, body, err := c.Receive(1 << 16)
		switch {
		case err != nil:
			return err
		case typ == 'E' || typ == 'R':
			return fmt.Errorf("no session: %c %q", typ, body)
		case typ == 'Z':
			return nil
		}
	}
}

// tryLogin connects with pgx's client and closes the session at once.
func tryLogin(t testing.TB, config *pgconn.Config, user, password string) error {
	c := config.Copy()
	c.User, c.Password = user, password
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func reasonOf(err error) csf.Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
