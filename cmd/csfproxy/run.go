package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/csfproxy/csfproxy/internal/app"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var file, profile string
	c := &cobra.Command{
		Use: "run --config FILE", Short: "Run the ingress", Args: exactly(0),
		Long: "Runs the ingress in the foreground. SIGHUP reloads the configuration, certificates and secrets; SIGTERM and Ctrl-C\n" +
			"drain: sessions end when their transaction does, new ones are refused with 57P03.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if profile != "" {
				end, perr := startProfile(profile)
				if perr != nil {
					return perr
				}
				defer func() { err = errors.Join(err, end()) }()
			}
			return runNode(cmd.Context(), file)
		},
	}
	c.Flags().StringVar(&profile, "profile", "", "write a CPU profile of the whole run to `DIR`/cpu.pprof and, on SIGUSR1 and at the end, the heap to DIR/heap.pprof")
	c.Flags().StringVar(&file, "config", "csfproxy.yaml", "configuration file")
	return c
}

// stopTimeout bounds the end of everything after the drain.
const stopTimeout = 30 * time.Second

// collectAt is the growth of the heap, in percent, at which memory is collected, where the environment's GOGC says
// nothing. Go's own 100 lets garbage take as much as what lives; relaying makes none, and of sessions that wait only
// what lives is to count.
const collectAt = 50

func runNode(ctx context.Context, file string) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	load := func() (*config.Config, error) { return loadConfig(file) }
	cfg, err := load()
	if err != nil {
		return err
	}
	for _, f := range cfg.Findings {
		log.Warn("standing finding of the configuration", "file", file, "line", f.Line, "key", f.Key, "finding", f.Message)
	}
	node, err := app.Start(ctx, cfg, app.Options{Version: version, Logger: log, LoadConfig: load})
	if err != nil {
		return err
	}
	for _, l := range cfg.Listeners {
		log.Info("listening", "listener", l.Name, "address", node.Addr(l.Name))
	}
	log.Info("ready", "node", cfg.Node.Name, "api", node.APIAddr(), "version", version)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			if err := node.Reload(); err != nil {
				log.Error("the configuration was not reloaded; the old one stays in force", "error", err)
			} else {
				log.Info("configuration reloaded")
			}
		case <-ctx.Done():
			log.Info("stopping")
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			if err := node.Stop(end); err != nil {
				return fmt.Errorf("stop: %w", err)
			}
			return nil
		}
	}
}
