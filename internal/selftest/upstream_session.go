package selftest

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/csfproxy/csfproxy/proxy/auth"
	"github.com/jackc/pgx/v5/pgproto3"
)

// upstreamSession is one session of the fake server.
type upstreamSession struct {
	*Upstream
	conn     net.Conn
	prepared map[string]string // statement name → text
	bound    string            // text of the unnamed portal
	failed   bool              // extended messages are skipped up to Sync
	inTx     bool
}

// Receive reads one message and records it (auth.Conn).
func (s *upstreamSession) Receive(limit int) (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if n < 0 || n > int64(limit) {
		s.record(Message{Type: head[0], Body: head[:]})
		return head[0], nil, fmt.Errorf("message length %d", n+4)
	}
	body := make([]byte, n)
	read, err := io.ReadFull(s.conn, body)
	s.record(Message{Type: head[0], Body: body[:read]})
	return head[0], body, err
}

// Send writes messages (auth.Conn).
func (s *upstreamSession) Send(b []byte) error {
	_, err := s.conn.Write(b)
	return err
}

func (s *upstreamSession) send(messages ...pgproto3.BackendMessage) error {
	var out []byte
	for _, m := range messages {
		var err error
		if out, err = m.Encode(out); err != nil {
			return err
		}
	}
	return s.Send(out)
}

// login authenticates the client as the database's name says and opens the session.
func (s *upstreamSession) login(body []byte) error {
	p := parameters(body)
	switch p["database"] {
	case databaseMD5:
		q := &pgproto3.AuthenticationMD5Password{}
		rand.Read(q.Salt[:])
		if err := s.ask(q); err != nil {
			return err
		}
	case databaseCleartext:
		if err := s.ask(&pgproto3.AuthenticationCleartextPassword{}); err != nil {
			return err
		}
	case databaseTrust:
	default:
		if _, err := auth.ServeSCRAM(s, s.verifier, auth.ServerOptions{Rand: rand.Reader}); err != nil {
			if e, ok := errors.AsType[*auth.Error](err); ok && e.SQLSTATE != "" {
				s.send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: e.SQLSTATE, Message: e.Message})
			}
			return err
		}
	}
	key := s.newKey()
	out := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for _, kv := range [][2]string{{"server_version", "15.0"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"}, {"integer_datetimes", "on"}, {"DateStyle", "ISO, MDY"}, {"TimeZone", "UTC"}, {"is_superuser", "off"}} {
		out = append(out, &pgproto3.ParameterStatus{Name: kv[0], Value: kv[1]})
	}
	return s.send(append(out, &pgproto3.BackendKeyData{ProcessID: binary.BigEndian.Uint32(key), SecretKey: key[4:]}, s.ready())...)
}

// ask sends a question for a password and takes any answer.
func (s *upstreamSession) ask(question pgproto3.BackendMessage) error {
	if err := s.send(question); err != nil {
		return err
	}
	typ, _, err := s.Receive(maxBody)
	if err == nil && typ != 'p' {
		err = fmt.Errorf("message type %q in place of a password", typ)
	}
	return err
}

func (s *upstreamSession) ready() *pgproto3.ReadyForQuery {
	if s.inTx {
		return &pgproto3.ReadyForQuery{TxStatus: 'T'}
	}
	return &pgproto3.ReadyForQuery{TxStatus: 'I'}
}

// step answers one message; an error ends the session.
func (s *upstreamSession) step() error {
	typ, body, err := s.Receive(maxBody)
	if err != nil {
		return err
	}
	switch typ {
	case 'X':
		return io.EOF
	case 'S':
		s.failed = false
		return s.send(s.ready())
	case 'Q':
		sql, _, _ := bytes.Cut(body, []byte{0})
		return s.send(append(s.execute(string(sql), true), s.ready())...)
	case 'H':
		return nil
	}
	if s.failed {
		return nil
	}
	fields := strings.SplitN(string(body), "\x00", 3)
	switch {
	case typ == 'P' && len(fields) == 3:
		s.prepared[fields[0]] = fields[1]
		if answer(fields[1]) == nil {
			return s.refuse()
		}
		return s.send(&pgproto3.ParseComplete{})
	case typ == 'B' && len(fields) == 3:
		s.bound = s.prepared[fields[1]]
		return s.send(&pgproto3.BindComplete{})
	case typ == 'D' && len(body) > 0:
		if body[0] == 'S' {
			if err := s.send(&pgproto3.ParameterDescription{}); err != nil {
				return err
			}
		}
		return s.send(row())
	case typ == 'E':
		return s.send(s.execute(s.bound, false)...)
	case typ == 'C':
		return s.send(&pgproto3.CloseComplete{})
	}
	s.send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: fmt.Sprintf("invalid frontend message type %d", typ)})
	return fmt.Errorf("message type %q", typ)
}

func (s *upstreamSession) refuse() error {
	s.failed = true
	return s.send(syntaxError())
}

// execute gives the answer to a statement; describe adds the description of its row.
func (s *upstreamSession) execute(sql string, describe bool) []pgproto3.BackendMessage {
	tag := answer(sql)
	switch {
	case tag == nil:
		return []pgproto3.BackendMessage{syntaxError()}
	case bytes.Equal(tag, []byte("SELECT 1")):
		out := []pgproto3.BackendMessage{&pgproto3.DataRow{Values: [][]byte{[]byte("1")}}, &pgproto3.CommandComplete{CommandTag: tag}}
		if describe {
			out = append([]pgproto3.BackendMessage{row()}, out...)
		}
		return out
	case len(tag) == 0:
		return []pgproto3.BackendMessage{&pgproto3.EmptyQueryResponse{}}
	}
	s.inTx = string(tag) == "BEGIN"
	return []pgproto3.BackendMessage{&pgproto3.CommandComplete{CommandTag: tag}}
}

// answer gives the command tag of a statement, empty for an empty one and nil for what the fake server does not know.
func answer(sql string) []byte {
	word, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(sql), ";"))), " ")
	switch word {
	case "":
		return []byte{}
	case "SELECT":
		return []byte("SELECT 1")
	case "BEGIN", "COMMIT", "ROLLBACK":
		return []byte(word)
	}
	return nil
}

func row() *pgproto3.RowDescription {
	const typeInt4 = 23 // its OID in pg_type
	return &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("?column?"), DataTypeOID: typeInt4, DataTypeSize: 4, TypeModifier: -1}}}
}

func syntaxError() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42601", Message: "syntax error"}
}
