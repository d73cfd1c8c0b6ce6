package client

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Stream calls f with the data of each server-sent event until ctx ends or the node closes.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, f func(data []byte) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "text/event-stream")
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("the node at %s does not answer: %w", c.base, err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return problem(res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			if err := f([]byte(strings.TrimSpace(data))); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return lines.Err()
}
