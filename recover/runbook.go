package recovery

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/csfproxy/csfproxy/internal/config"
)

//go:embed runbooks/*.yaml
var builtinRunbooks embed.FS

// builtin is the word by which the configuration names the embedded runbooks.
const builtin = "builtin"

// Names of the failover managers.
const (
	managerBuiltin = "builtin"
	managerPatroni = "patroni"
	managerNone    = "none"
)

// Runbook is a procedure as data: typed steps, per failover manager.
type Runbook struct {
	Name        string `yaml:"name" json:"name"`
	Description string `yaml:"description" json:"description"`
	// Steps are keyed by failover manager; a manager that is missing cannot run it.
	Steps map[string][]Step `yaml:"steps" json:"steps"`
}

// Step is one typed step.
type Step struct {
	// Do is the type: one of the kinds in the table of steps.
	Do string `yaml:"do" json:"do"`
	// Timeout bounds the step; 0 is the type's default.
	Timeout config.Duration `yaml:"timeout" json:"timeout,omitempty"`
}

var runbookName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// LoadRunbooks reads runbooks: the word "builtin", or file patterns. A later runbook replaces an earlier one of
// the same name. A pattern that matches no file, an unknown key and an order of steps that could
// promote before it has fenced are errors.
func LoadRunbooks(patterns []string) ([]Runbook, error) {
	if len(patterns) == 0 {
		patterns = []string{builtin}
	}
	all := map[string]Runbook{}
	read := func(name string, b []byte) error {
		rb, err := parseRunbook(b)
		if err != nil {
			return fmt.Errorf("runbook %s: %w", name, err)
		}
		all[rb.Name] = rb
		return nil
	}
	for _, p := range patterns {
		if p == builtin {
			names, err := fs.Glob(builtinRunbooks, "runbooks/*.yaml")
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				b, err := builtinRunbooks.ReadFile(n)
				if err != nil {
					return nil, err
				}
				if err := read(n, b); err != nil {
					return nil, err
				}
			}
			continue
		}
		names, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("runbooks %q: %w", p, err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("runbooks %q: no such file", p)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				return nil, fmt.Errorf("runbook: %w", err)
			}
			if err := read(n, b); err != nil {
				return nil, err
			}
		}
	}
	var out []Runbook
	for _, n := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[n])
	}
	return out, nil
}

func parseRunbook(b []byte) (Runbook, error) {
	var rb Runbook
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&rb); err != nil {
		return rb, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return rb, errors.New("the file must hold one document")
	}
	return rb, rb.validate()
}

// validate checks names and the order that safety needs.
func (rb Runbook) validate() error {
	if !runbookName.MatchString(rb.Name) {
		return fmt.Errorf("name %q must be lower-case letters, digits and hyphens", rb.Name)
	}
	if len(rb.Steps) == 0 {
		return errors.New("there are no steps")
	}
	for _, manager := range slices.Sorted(maps.Keys(rb.Steps)) {
		if manager != managerBuiltin && manager != managerPatroni {
			return fmt.Errorf("steps for %q: the managers with runbooks are %s and %s", manager, managerBuiltin, managerPatroni)
		}
		if len(rb.Steps[manager]) == 0 {
			return fmt.Errorf("steps for %s: there are none", manager)
		}
		done := map[string]bool{}
		for i, s := range rb.Steps[manager] {
			t, ok := stepTypes[s.Do]
			if !ok {
				return fmt.Errorf("steps for %s: step %d: unknown type %q", manager, i+1, s.Do)
			}
			if t.manager != "" && t.manager != manager {
				return fmt.Errorf("steps for %s: step %d: %s is for %s", manager, i+1, s.Do, t.manager)
			}
			if s.Timeout < 0 || s.Timeout.D() > time.Hour {
				return fmt.Errorf("steps for %s: step %d: timeout %v is outside 0 to 1h", manager, i+1, s.Timeout.D())
			}
			if done[s.Do] {
				return fmt.Errorf("steps for %s: step %d: %s comes twice", manager, i+1, s.Do)
			}
			met := len(t.after) == 0
			for _, need := range t.after {
				met = met || done[need]
			}
			if !met {
				return fmt.Errorf("steps for %s: step %d: %s needs one of %v before it", manager, i+1, s.Do, t.after)
			}
			done[s.Do] = true
		}
	}
	return nil
}

// stepType declares one type of step. The methods that act are in the table effects.
type stepType struct {
	// timeout is the default bound.
	timeout time.Duration
	// after are types of which one must have come before.
	after []string
	// manager restricts the type to one failover manager.
	manager string
}

// Types of steps.
const (
	stepConfirm = "confirm" // the primary is lost
	stepReady   = "ready"   // the primary serves and a standby can take over
	stepFence   = "fence"   // no session goes to the old primary any more
	stepChoose  = "choose"  // the most advanced standby
	stepCatchup = "catchup" // it has received what the old primary had written
	stepPromote = "promote"
	stepVerify  = "verify"  // it is a primary, on a later timeline, and commits
	stepReroute = "reroute" // sessions go to it under the new term
	stepAsk     = "ask"     // Patroni does it
)

var stepTypes = map[string]stepType{
	stepConfirm: {timeout: 10 * time.Second},
	stepReady:   {timeout: 5 * time.Second},
	stepFence:   {timeout: 30 * time.Second, after: []string{stepConfirm, stepReady}},
	stepChoose:  {timeout: 10 * time.Second, after: []string{stepFence}, manager: managerBuiltin},
	stepCatchup: {timeout: 30 * time.Second, after: []string{stepChoose}, manager: managerBuiltin},
	stepPromote: {timeout: 60 * time.Second, after: []string{stepChoose}, manager: managerBuiltin},
	stepAsk:     {timeout: 60 * time.Second, after: []string{stepFence}, manager: managerPatroni},
	stepVerify:  {timeout: 10 * time.Second, after: []string{stepPromote, stepAsk}},
	stepReroute: {timeout: 5 * time.Second, after: []string{stepVerify}},
}
