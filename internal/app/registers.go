package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/reports/api"
)

// repeatEvery is how often the configuration in force and its registers are recorded again, so that a report of any
// whole day speaks of them although the node has run for months.
const repeatEvery = 12 * time.Hour

// repeatRegisters records what is in force again and again.
func (a *App) repeatRegisters(ctx context.Context) error {
	tick := time.NewTicker(repeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.announceBuild()
			a.announceConfig(a.cfg.Load())
		}
	}
}

// driftEvery is how often the file is held against the configuration in force.
const driftEvery = time.Minute

// watchFile records when the configuration file differs from what is in force. A change that is reloaded within two
// looks is none: whoever edits a file is not done with it at once.
func (a *App) watchFile(ctx context.Context) error {
	tick := time.NewTicker(driftEvery)
	defer tick.Stop()
	var d drift
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if e, ok := d.look(a.cfg.Load().File, a.cfg.Load().Hash, os.ReadFile); ok {
				a.records.Record(e)
			}
		}
	}
}

// drift remembers what was seen of the file.
type drift struct {
	seen, told string // hashes, or the fault, of the last look and of the last event
}

// look reads the file and gives the event of a difference that was there at the look before too, once for each.
func (d *drift) look(file, inForce string, read func(string) ([]byte, error)) (csf.Event, bool) {
	if file == "" {
		return csf.Event{}, false
	}
	facts := csf.Facts{"file": file, "in_force": inForce}
	var now string
	if b, err := read(file); err != nil {
		now = err.Error()
		facts["detail"] = now
	} else {
		sum := sha256.Sum256(b)
		now = hex.EncodeToString(sum[:])
		facts["sha256"] = now
	}
	before := d.seen
	d.seen = now
	switch {
	case now == inForce:
		d.told = ""
		return csf.Event{}, false
	case now != before, now == d.told:
		return csf.Event{}, false
	}
	d.told = now
	return csf.Event{Kind: csf.ConfigDrift, Facts: facts}, true
}

// mapping gives a version of the mapping that the program carries, or the configured one for "".
func (a *App) mapping(version string) (*csf.Mapping, error) {
	if version == "" {
		return csf.LoadMapping(a.cfg.Load().CSF.Mapping)
	}
	m, err := csf.MappingVersion(version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return m, nil
}
