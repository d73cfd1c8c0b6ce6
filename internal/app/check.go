package app

import (
	"errors"
	"fmt"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect"
	"github.com/csfproxy/csfproxy/internal/config"
	"github.com/csfproxy/csfproxy/proxy/upstream"
	recovery "github.com/csfproxy/csfproxy/recover"
	"github.com/csfproxy/csfproxy/reports/api"
)

// Check looks at what a valid configuration refers to and its own package does not know: rules, runbooks, the clusters'
// TLS files, the register of tokens and NIST's catalog. It connects to nothing and changes nothing. The error joins one
// config.Problem for each fault, with the key that leads to it; nil says that a node can be built from the configuration.
func Check(cfg *config.Config) error {
	var errs []error
	fault := func(key string, err error) {
		if err == nil {
			return
		}
		each := []error{err}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			each = joined.Unwrap()
		}
		section, _, _ := strings.Cut(key, ".")
		section, _, _ = strings.Cut(section, "[")
		for _, e := range each {
			// A problem is one line; the YAML library's lists of faults are several.
			text := strings.Join(strings.Fields(e.Error()), " ")
			errs = append(errs, config.Problem{File: cfg.File, Line: cfg.Sections[section], Key: key, Message: text})
		}
	}
	_, err := detect.LoadRules(cfg.Rules)
	fault("rules", err)
	_, err = recovery.LoadRunbooks(cfg.Runbooks)
	fault("runbooks", err)
	for i, c := range cfg.Clusters {
		fault(fmt.Sprintf("clusters[%d]", i), upstream.Check(c))
	}
	if cfg.API.Tokens != "" {
		_, err = api.LoadTokens(cfg.API.Tokens)
		fault("api.tokens", err)
	}
	_, err = csf.LoadMapping(cfg.CSF.Mapping)
	fault("csf.mapping", err)
	if cfg.CSF.Catalog != "" {
		_, err = csf.LoadCatalog(cfg.CSF.Catalog)
		fault("csf.catalog", err)
	}
	return errors.Join(errs...)
}
