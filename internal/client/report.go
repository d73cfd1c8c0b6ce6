package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
)

// reportPoll is how often a report that is being made is asked for.
const reportPoll = 200 * time.Millisecond

// MakeReport asks for a report by the members of POST /v1/reports and waits until it is made, telling each stage once.
// When ctx ends first, the making is stopped too.
func (c *Client) MakeReport(ctx context.Context, ask map[string]any, tell io.Writer) (api.Report, error) {
	var r api.Report
	if err := c.Do(ctx, http.MethodPost, "/v1/reports", nil, ask, &r); err != nil {
		return r, err
	}
	path, told := "/v1/reports/"+r.ID, ""
	for r.State == api.ReportQueued || r.State == api.ReportRunning {
		if line := strings.TrimSpace(r.State + " " + r.Stage); line != told {
			fmt.Fprintln(tell, line)
			told = line
		}
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return r, errors.Join(ctx.Err(), c.Do(end, http.MethodDelete, path, nil, nil, nil))
		case <-time.After(reportPoll):
		}
		if err := c.Do(ctx, http.MethodGet, path, nil, nil, &r); err != nil {
			return r, err
		}
	}
	if r.State != api.ReportDone {
		return r, fmt.Errorf("the report is %s: %s", r.State, r.Error)
	}
	return r, nil
}

// DownloadReport writes a report that has been made to w.
func (c *Client) DownloadReport(ctx context.Context, id string, w io.Writer) error {
	return c.Do(ctx, http.MethodGet, "/v1/reports/"+id+"/download", nil, nil, w)
}
