package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// Bounds of a CancelRequest (PostgreSQL documentation, "Message Formats"; protocol 3.2 allows keys of up to 256 bytes).
const (
	cancelCode    = 80877102
	cancelTimeout = 10 * time.Second
	minCancelKey  = 4
	maxCancelKey  = 256
)

// Cancel sends a CancelRequest to a member over a connection that passed the same TLS rules as every other, and
// waits until the server has closed it: only then has the signal been sent, and the backend may be given
// to somebody else. It takes at most 10 seconds. Errors carry ReasonCancelUpstream.
func (c *Cluster) Cancel(ctx context.Context, member string, pid uint32, key []byte) error {
	fail := func(err error) error {
		return &Error{Op: "cancel", Member: member, Reason: csf.ReasonCancelUpstream, Err: err}
	}
	if len(key) < minCancelKey || len(key) > maxCancelKey {
		return fail(fmt.Errorf("a cancel key of %d bytes is outside %d to %d", len(key), minCancelKey, maxCancelKey))
	}
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	conn, err := c.DialMember(ctx, member)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	msg := make([]byte, 0, 12+maxCancelKey)
	msg = binary.BigEndian.AppendUint32(msg, uint32(12+len(key)))
	msg = binary.BigEndian.AppendUint32(msg, cancelCode)
	msg = binary.BigEndian.AppendUint32(msg, pid)
	msg = append(msg, key...)
	if _, err := conn.Write(msg); err != nil {
		return fail(cause(ctx, err))
	}
	var rest [1]byte
	switch n, err := conn.Read(rest[:]); {
	case n > 0:
		return fail(errors.New("the server answered a CancelRequest"))
	case ctx.Err() != nil:
		return fail(ctx.Err())
	case closedByPeer(err):
		return nil
	default:
		return fail(err)
	}
}

// closedByPeer says whether the server has let go of the connection: PostgreSQL's children exit without
// close_notify, which can also show as a reset.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
