package app

import (
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/reports"
)

// exceptionEntries are the configuration's exceptions as a report lists them.
func exceptionEntries(cfg *config.Config) []reports.Exception {
	var out []reports.Exception
	for _, x := range cfg.Exceptions {
		out = append(out, reports.ExceptionOf(x.CSF()))
	}
	return out
}
