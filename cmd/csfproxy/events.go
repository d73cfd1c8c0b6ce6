package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newEvents(s *shared) *cobra.Command {
	var kind, session, identity, since, until string
	var limit int
	query := func() (url.Values, error) {
		q := url.Values{}
		if kind != "" {
			if err := knownKind(kind); err != nil {
				return nil, err
			}
		}
		for k, v := range map[string]string{"kind": kind, "session": session, "identity": identity, "since": since, "until": until} {
			if v != "" {
				q.Set(k, v)
			}
		}
		return q, nil
	}
	list := &cobra.Command{Use: "list", Short: "List stored events, newest first", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		q, err := query()
		if err != nil {
			return err
		}
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		events, err := client.All[api.Event](cmd.Context(), cl, "/v1/events", q, limit)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(cmd.OutOrStdout(), events)
		}
		var rows [][]string
		var details []string
		for _, e := range events {
			row := eventRow(e)
			rows, details = append(rows, row[:6]), append(details, row[6]+" "+row[7])
		}
		return printDetailed(cmd.OutOrStdout(), "no event", []string{"seq", "time", "kind", "reason", "identity", "client"}, rows, details)
	}}
	tail := &cobra.Command{Use: "tail", Short: "Print events as they happen", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		q, err := query()
		if err != nil {
			return err
		}
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		return cl.Stream(cmd.Context(), "/v1/events/stream", q, func(data []byte) error {
			var e api.Event
			if s.json {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", data)
				return err
			}
			if err := json.Unmarshal(data, &e); err != nil || e.Kind == "" {
				return nil // a comment of the stream, such as a count of lost events
			}
			return printLine(cmd.OutOrStdout(), eventRow(e))
		})
	}}
	c := s.ofNode(subcommands("events", "Read the events of a node", list, tail))
	f := c.PersistentFlags()
	f.StringVar(&kind, "kind", "", "only this kind, such as auth.failed")
	f.StringVar(&session, "session", "", "only this session")
	f.StringVar(&identity, "identity", "", "only this identity")
	f.StringVar(&since, "since", "", "from: a day, an RFC 3339 time or a duration before now (24h)")
	list.Flags().StringVar(&until, "until", "", "to, not included")
	list.Flags().IntVar(&limit, "limit", 100, "at most so many")
	return c
}

// knownKind refuses a kind that no event can have: a misspelt one would look like nothing happened.
func knownKind(kind string) error {
	area, _, _ := strings.Cut(kind, ".")
	var near, areas []string
	for _, k := range csf.Kinds() {
		if string(k.Kind) == kind {
			return nil
		}
		a, _, _ := strings.Cut(string(k.Kind), ".")
		if a == area {
			near = append(near, string(k.Kind))
		}
		if !slices.Contains(areas, a) {
			areas = append(areas, a)
		}
	}
	if len(near) > 0 {
		return usageError{fmt.Errorf("--kind %q: no such kind; there are %s", kind, strings.Join(near, ", "))}
	}
	return usageError{fmt.Errorf("--kind %q: no such kind; kinds begin with %s", kind, strings.Join(areas, ", "))}
}

// printLine prints one event on a line of its own.
func printLine(w io.Writer, row []string) error {
	for i, c := range row {
		row[i] = cmp.Or(c, "-")
	}
	_, err := fmt.Fprintln(w, strings.Join(row, "  "))
	return err
}

func eventRow(e api.Event) []string {
	client := ""
	if e.Client.IsValid() {
		client = e.Client.String()
	}
	return []string{strconv.FormatUint(e.Seq, 10), timeText(e.Time), string(e.Kind), string(e.Reason), e.Identity, client,
		strings.Join(e.CSF, ","), factLine(e.Facts)}
}
