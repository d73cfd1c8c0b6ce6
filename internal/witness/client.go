package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/store/translog"
)

// maxBody bounds a request and an answer: a proof of 63 hashes and a note.
const maxBody = 128 << 10

// sizeType is the media type of an answer that is the size of the last cosigned checkpoint.
const sizeType = "text/x.tlog.size"

// Client asks one witness for cosignatures.
type Client struct {
	url  string
	vkey string
	key  note.Verifier
	http *http.Client
}

// NewClient gives the client of a witness at an address, with its verifier key.
func NewClient(url, vkey string) (*Client, error) {
	v, err := translog.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	if !translog.IsCosigner(v) {
		return nil, fmt.Errorf("%s is a log's key, not a witness's: csfproxy witness prints the right one", v.Name())
	}
	return &Client{url: strings.TrimSuffix(url, "/") + "/add-checkpoint", vkey: vkey, key: v, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// VerifierKey gives the witness's verifier key.
func (c *Client) VerifierKey() string { return c.vkey }

// refusal is an answer that says that the log is not the one that the witness knows.
type refusal struct{ why string }

func (r *refusal) Error() string { return "the witness refuses: " + r.why }

// Refusal says whether an error of Ask is a refusal that concerns the log itself, and why.
func Refusal(err error) (why string, ok bool) {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return "", false
	}
	return r.why, true
}

// Ask brings a signed checkpoint to the witness. old is the size that the witness is thought to have cosigned last; it
// corrects it. prove gives the proof from a size to the checkpoint's. The cosignatures are checked.
func (c *Client) Ask(ctx context.Context, old int64, signed []byte, prove func(old int64) ([]tlog.Hash, error)) ([]translog.Cosignature, error) {
	cp, err := translog.Unverified(signed)
	if err != nil {
		return nil, err
	}
	old = min(old, cp.Size)
	for attempt := 1; ; attempt++ {
		proof, err := prove(old)
		if err != nil {
			return nil, err
		}
		status, kind, answer, err := c.post(ctx, request(old, proof, signed))
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusOK:
			return translog.OpenCosignatures(cp, answer, c.key)
		case status == http.StatusConflict && kind == sizeType:
			have, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
			if err != nil || have < 0 {
				return nil, fmt.Errorf("the witness answered with a size that is none: %.40q", answer)
			}
			if have > cp.Size {
				return nil, &refusal{fmt.Sprintf("it cosigned size %d, the log has %d: the log was put back", have, cp.Size)}
			}
			if have == old || attempt > 3 {
				return nil, fmt.Errorf("the witness does not settle on a size: it says %d", have)
			}
			old = have
		case status == http.StatusConflict, status == http.StatusUnprocessableEntity:
			return nil, &refusal{fmt.Sprintf("size %d does not continue the size %d that it cosigned: the log was forked", cp.Size, old)}
		case status == http.StatusForbidden, status == http.StatusNotFound:
			return nil, &refusal{"it does not know the log's name or key: give it the verifier key"}
		default:
			return nil, fmt.Errorf("the witness answered with status %d", status)
		}
	}
}

func request(old int64, proof []tlog.Hash, signed []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		b.WriteString(h.String() + "\n")
	}
	b.WriteString("\n")
	b.Write(signed)
	return b.Bytes()
}

func (c *Client) post(ctx context.Context, body []byte) (status int, kind, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	res, err := c.http.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return res.StatusCode, res.Header.Get("Content-Type"), string(b), err
}
