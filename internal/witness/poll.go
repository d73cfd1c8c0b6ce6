package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// Source is the log as its API shows it to those who ask.
type Source interface {
	// Latest gives the newest signed checkpoint.
	Latest(ctx context.Context) ([]byte, error)
	// Consistency gives the proof that the tree of size contains the one of old, 0 < old < size.
	Consistency(ctx context.Context, old, size int64) ([]tlog.Hash, error)
}

// ErrAlarm is the error of a log that forked or was put back. What was seen lies in the witness's directory.
var ErrAlarm = errors.New("the log is not append-only")

// Poll asks the log once for its newest checkpoint, checks that it contains the last one, keeps it and cosigns. ErrAlarm
// says that it does not contain it; every other error leaves the state as it was, and the log may be asked again.
func (w *Witness) Poll(ctx context.Context, log Source) error {
	if s := w.Status(); s.Alarm != "" {
		return fmt.Errorf("%w: %s; look at it, and move the evidence files out of %s to go on", ErrAlarm, s.Alarm, w.opts.Dir)
	}
	old := w.Status().Size
	signed, err := log.Latest(ctx)
	if err != nil {
		return fmt.Errorf("newest checkpoint: %w", err)
	}
	claimed, err := translog.Open(signed, w.keys) // nothing is asked about a size that the log did not sign
	if err != nil {
		return fmt.Errorf("newest checkpoint: %w", err)
	}
	var proof []tlog.Hash
	if old > 0 && old < claimed.Size {
		if proof, err = log.Consistency(ctx, old, claimed.Size); err != nil {
			return fmt.Errorf("proof that size %d contains size %d: %w", claimed.Size, old, err)
		}
	}
	// From here on as if the log had brought it.
	status, _, answer := w.add(request(min(old, claimed.Size), proof, signed))
	after := w.Status()
	switch {
	case after.Alarm != "":
		return fmt.Errorf("%w: %s; both signed notes and the proof lie in %s", ErrAlarm, after.Alarm, w.opts.Dir)
	case status != http.StatusOK:
		return fmt.Errorf("the checkpoint was not taken: %s", strings.TrimSpace(answer))
	}
	w.opts.Logger.Info("checked and cosigned", "log", after.Origin, "size", after.Size, "grew", after.Size-old, "root", after.Root)
	return nil
}

// Watch polls until ctx ends, which is no error, or the log raises an alarm. What keeps a poll from being made is logged,
// and the next one comes after the same time.
func (w *Witness) Watch(ctx context.Context, log Source, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for failed := 0; ; {
		asked, cancel := context.WithTimeout(ctx, pollTimeout)
		err := w.Poll(asked, log)
		cancel()
		switch {
		case errors.Is(err, ErrAlarm):
			return err
		case ctx.Err() != nil:
			return nil
		case err != nil:
			failed++
			w.opts.Logger.Warn("the log was not checked; it is asked again", "error", err, "in", every, "failed_in_a_row", failed, "last_size", w.Status().Size)
		default:
			failed = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// pollTimeout bounds one poll.
const pollTimeout = time.Minute

// API is a Source over a node's REST API. The token needs no more than the role auditor.
type API struct {
	// Base is the address of the API, such as https://edge-1:8432, without /v1.
	Base  string
	Token string
	// HTTP is the client; nil: http.DefaultClient.
	HTTP *http.Client
}

// Latest asks GET /v1/checkpoints/latest.
func (a API) Latest(ctx context.Context) ([]byte, error) {
	return a.get(ctx, "/v1/checkpoints/latest")
}

// Consistency asks GET /v1/checkpoints/SIZE/consistency.
func (a API) Consistency(ctx context.Context, old, size int64) ([]tlog.Hash, error) {
	text, err := a.get(ctx, fmt.Sprintf("/v1/checkpoints/%d/consistency?from=%d", size, old))
	if err != nil {
		return nil, err
	}
	var proof []tlog.Hash
	for line := range strings.Lines(string(text)) {
		h, err := tlog.ParseHash(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("the answer is no proof: %.60q", line)
		}
		proof = append(proof, h)
	}
	return proof, nil
}

func (a API) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(a.Base, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Token)
	client := a.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the log's node answered with status %d: %.200s", res.StatusCode, strings.TrimSpace(string(body)))
	}
	return body, err
}
