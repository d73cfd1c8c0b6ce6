package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/internal/client"
	"github.com/csfproxy/csfproxy/reports/api"
	"github.com/spf13/cobra"
)

func newEvents(s *shared) *cobra.Command {
	var kind, session, identity, since, until string
	var limit int
	query := func() url.Values {
		q := url.Values{}
		for k, v := range map[string]string{"kind": kind, "session": session, "identity": identity, "since": since, "until": until} {
			if v != "" {
				q.Set(k, v)
			}
		}
		return q
	}
	list := &cobra.Command{Use: "list", Short: "List stored events, newest first", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		events, err := client.All[api.Event](cmd.Context(), cl, "/v1/events", query(), limit)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(cmd.OutOrStdout(), events)
		}
		var rows [][]string
		for _, e := range events {
			rows = append(rows, eventRow(e))
		}
		printTable(cmd.OutOrStdout(), "no event", []string{"seq", "time", "kind", "reason", "identity", "client", "csf", "facts"}, rows)
		return nil
	}}
	tail := &cobra.Command{Use: "tail", Short: "Print events as they happen", Args: exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
		cl, err := client.New(s.node)
		if err != nil {
			return err
		}
		return cl.Stream(cmd.Context(), "/v1/events/stream", query(), func(data []byte) error {
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

func printLine(w io.Writer, row []string) error {
	_, err := fmt.Fprintln(w, strings.Join(row, "  "))
	return err
}

func eventRow(e api.Event) []string {
	client := ""
	if e.Client.IsValid() {
		client = e.Client.String()
	}
	return []string{strconv.FormatUint(e.Seq, 10), e.Time.Format("2006-01-02T15:04:05.000Z07:00"), string(e.Kind), string(e.Reason), e.Identity, client,
		strings.Join(e.CSF, ","), string(e.Facts.JSON())}
}
