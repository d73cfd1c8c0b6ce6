package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/store"
	"github.com/csfproxy/csfproxy/store/translog"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
)

// logVerify are the flags of log verify.
type logVerify struct {
	config, store, known string
	keys, witnesses      []string
	json                 bool
}

// logVerified is what log verify found.
type logVerified struct {
	store.LogReport
	// Keys are those that the checkpoints were checked with; Notes is what a reader should know beside the counts.
	Keys  []string `json:"keys"`
	Notes []string `json:"findings"`
	// Failure is the first thing that is wrong, "" when nothing is; Leaf is set where it is one.
	Failure string           `json:"failure,omitempty"`
	Leaf    *store.LeafError `json:"leaf,omitempty"`
}

func newLog() *cobra.Command {
	o := logVerify{}
	verify := &cobra.Command{
		Use: "verify [--config FILE | --store URL] [--key VKEY] [--witness VKEY] [--known FILE]", Short: "Check every stored event against the signed log", Args: exactly(0),
		Long: "Reads the whole event store, in one snapshot while nodes go on: each stored event gives the hash of its leaf, its columns say what it says,\n" +
			"no number is missing, doubled or reordered but for the days that retention dropped, no event stands beside the log, and the hashes give\n" +
			"the signed root of every checkpoint. It ends with 1 and names the first leaf that is wrong. It needs to read alone (role csfproxy_reader).",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := verify.Flags()
	f.StringVar(&o.config, "config", "", "configuration file of a node: its event store, and the log's key that lies beside the node")
	f.StringVar(&o.store, "store", "", "PostgreSQL connection string of the event store, env:NAME or file:PATH (instead of the configuration's)")
	f.StringArrayVar(&o.keys, "key", nil, "verifier key of the log, or a file with one a line (repeatable; default: the configuration's, else the store's own, which proves less)")
	f.StringArrayVar(&o.witnesses, "witness", nil, "verifier key of a witness that must have cosigned, or a file with one a line (repeatable)")
	f.StringVar(&o.known, "known", "", "a signed checkpoint from elsewhere that the log must continue, such as a witness's last-checkpoint")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return subcommands("log", "Check the transparency log of an event store", verify)
}

func (o *logVerify) run(cmd *cobra.Command) error {
	if o.config == "" && o.store == "" {
		return usageError{errors.New("which event store? Give --config FILE or --store URL")}
	}
	url, named, err := o.find()
	if err != nil {
		return err
	}
	db, err := store.Open(cmd.Context(), url, store.DBOptions{MaxConns: 2})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Ping(cmd.Context()); err != nil {
		return err
	}
	out := logVerified{Notes: []string{}}
	v := store.VerifyOptions{Progress: progress(cmd.ErrOrStderr())}
	if err := o.trust(cmd.Context(), db, named, &v, &out); err != nil {
		return err
	}
	out.LogReport, err = db.VerifyLog(cmd.Context(), v)
	if err == nil && len(v.Witnesses) > 0 && out.Cosigned == 0 {
		err = errors.New("no checkpoint has a cosignature of a witness that was named")
	}
	if cmd.Context().Err() != nil {
		return cmd.Context().Err()
	}
	if err != nil {
		out.Failure = err.Error()
		out.Leaf, _ = errors.AsType[*store.LeafError](err)
	}
	for _, d := range out.Days {
		out.Notes = append(out.Notes, fmt.Sprintf("day %s: %d events were dropped at %s by the role %s; hold that against the retention that was agreed",
			d.Day.Format(time.DateOnly), d.Events, timeText(d.Dropped), d.By))
	}
	if out.Waiting > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d events are stored and wait for their leaf", out.Waiting))
	}
	if out.Witnessed == 0 {
		out.Notes = append(out.Notes, "no cosignature was checked: this does not show that who has the log's key and the database did not write another history")
	}
	if o.json {
		if perr := printJSON(cmd.OutOrStdout(), out); perr != nil {
			return perr
		}
	} else if perr := printLog(cmd.OutOrStdout(), out); perr != nil {
		return perr
	}
	if err != nil {
		return fmt.Errorf("the event store is not what was signed: %w", err)
	}
	return nil
}

// find gives the store's connection string and the keys that the configuration names.
func (o *logVerify) find() (url string, keys []string, err error) {
	if o.config != "" {
		cfg, err := config.Load(o.config, config.Options{})
		if err != nil {
			return "", nil, err
		}
		if keys, err = app.LogKeys(cfg); err != nil {
			return "", nil, err
		}
		if o.store == "" {
			url, err = app.StoreURL(cfg)
			return url, keys, err
		}
	}
	if name, ok := strings.CutPrefix(o.store, "env:"); ok {
		if url = os.Getenv(name); url == "" {
			return "", nil, usageError{fmt.Errorf("--store: the environment has no %s", name)}
		}
		return url, keys, nil
	}
	if file, ok := strings.CutPrefix(o.store, "file:"); ok {
		b, err := os.ReadFile(file)
		return strings.TrimSpace(string(b)), keys, err
	}
	return o.store, keys, nil
}

// trust fills in the keys: those given, those that they hand over to, and, where the configuration names the present key,
// earlier ones that handed over to it: the present key has signed the whole tree, whoever signed its beginnings.
func (o *logVerify) trust(ctx context.Context, db *store.DB, named []string, v *store.VerifyOptions, out *logVerified) error {
	given, err := readKeys(o.keys)
	if err != nil {
		return usageError{fmt.Errorf("--key: %w", err)}
	}
	if len(given) == 0 {
		given = named
	}
	stored, err := db.LogKeys(ctx)
	if err != nil {
		return err
	}
	var handovers [][]byte
	all := map[uint32]string{}
	add := func(k note.Verifier, text string) {
		if _, ok := all[k.KeyHash()]; !ok {
			all[k.KeyHash()] = text
			v.Keys, out.Keys = append(v.Keys, k), append(out.Keys, text)
		}
	}
	storedKeys := map[uint32]string{}
	for _, k := range stored {
		handovers = append(handovers, k.Handover)
		if key, err := translog.NewVerifier(k.VerifierKey); err == nil {
			storedKeys[key.KeyHash()] = k.VerifierKey
		}
	}
	for _, text := range given {
		k, err := translog.NewVerifier(text)
		if err != nil || translog.IsCosigner(k) {
			return usageError{fmt.Errorf("--key: %q is no verifier key of a log", text)}
		}
		add(k, text)
		for _, next := range translog.Follow(k, handovers) {
			add(next, storedKeys[next.KeyHash()])
		}
	}
	trusted := len(v.Keys)
	for _, s := range stored {
		k, err := translog.NewVerifier(s.VerifierKey)
		if err != nil {
			return fmt.Errorf("key %s in the event store: %w", s.KeyID, err)
		}
		leads := trusted == 0
		for _, next := range translog.Follow(k, handovers) {
			_, ok := all[next.KeyHash()]
			leads = leads || ok
		}
		if _, ok := all[k.KeyHash()]; leads && !ok {
			add(k, s.VerifierKey)
			if trusted > 0 {
				out.Notes = append(out.Notes, fmt.Sprintf("the earlier key %s is known from the event store, where it hands over to a key that you gave", s.KeyID))
			}
		}
	}
	if trusted == 0 {
		out.Notes = append(out.Notes, "no verifier key was given: the keys are those that the event store names, so this shows that it fits together, not who signed it")
	}
	witnesses, err := readKeys(o.witnesses)
	if err != nil {
		return usageError{fmt.Errorf("--witness: %w", err)}
	}
	for _, text := range witnesses {
		k, err := translog.NewVerifier(text)
		if err != nil || !translog.IsCosigner(k) {
			return usageError{fmt.Errorf("--witness: %q is no verifier key of a witness", text)}
		}
		v.Witnesses = append(v.Witnesses, k)
	}
	if o.known == "" {
		return nil
	}
	b, err := os.ReadFile(o.known)
	if err != nil {
		return fmt.Errorf("--known: %w", err)
	}
	signed, err := translog.Open(b, v.Keys, v.Witnesses...)
	if err != nil {
		return fmt.Errorf("--known %s: %w", o.known, err)
	}
	v.Known = &signed.Checkpoint
	return nil
}

// progress tells a person at a terminal how far the walk is, at most once a second.
func progress(w io.Writer) func(leaves, of int64) {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	var told time.Time
	return func(leaves, of int64) {
		if now := time.Now(); now.Sub(told) >= time.Second || leaves == of {
			told = now
			fmt.Fprintf(f, "\r%d of %d leaves", leaves, of)
			if leaves == of {
				fmt.Fprintln(f)
			}
		}
	}
}

func printLog(w io.Writer, r logVerified) error {
	var b strings.Builder
	if r.Size > 0 {
		fmt.Fprintf(&b, "log %s, size %d, root %s, signed %s\n", r.Origin, r.Size, r.Root, timeText(r.Signed))
	}
	for _, k := range r.Keys {
		fmt.Fprintf(&b, "key %s\n", k)
	}
	b.WriteString("\nchecked\n")
	line := func(name string, n int64, what string) { fmt.Fprintf(&b, "  %-19s %10d  %s\n", name, n, what) }
	line("events", r.Present, "stored events give the hash of their leaf, and their columns say what they say")
	line("withheld", r.Withheld, "of them have an erased body")
	line("dropped", r.Dropped, "leaves whose events retention dropped")
	line("checkpoints", r.Checkpoints, "signed by a key above, for the root that the leaves give")
	line("cosigned", r.Cosigned, fmt.Sprintf("of them by a witness that was named, up to size %d", r.Witnessed))
	if len(r.Notes) > 0 {
		fmt.Fprintf(&b, "\nto know\n  %s\n", strings.Join(r.Notes, "\n  "))
	}
	switch {
	case r.Failure == "":
		b.WriteString("\nVERIFIED\n")
	case r.Leaf != nil:
		fmt.Fprintf(&b, "\nWRONG  leaf %d, event %d of %s\n       %s\n", r.Leaf.Index, r.Leaf.Seq, r.Leaf.Node, r.Leaf.What)
	default:
		fmt.Fprintf(&b, "\nWRONG  %s\n", r.Failure)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
