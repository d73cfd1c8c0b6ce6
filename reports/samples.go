package reports

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// sampleSize is how many events are drawn from a population unless the caller says otherwise: what auditors
// commonly take for a control that works many times a day.
const sampleSize = 25

// SampleSeed gives the seed of a control's draw: SHA-256 of the checkpoint's root hash and the control's id. The root
// is fixed before the draw and depends on every event, so nobody can choose what is drawn.
func SampleSeed(root [sha256.Size]byte, control string) [sha256.Size]byte {
	return sha256.Sum256(append(root[:], control...))
}

// Draw gives n different places of a population of the given size, in rising order; all of them where the population
// is no larger than n. Number i = 0, 1, 2, … of the draw is the first 8 bytes, big-endian, of SHA-256(seed ‖ i as 8
// bytes, big-endian). Numbers at or above the largest multiple of the population's size below 2⁶⁴ are passed over, so
// that each place is equally likely; the others modulo the size are the places; one that was drawn before is passed over.
func Draw(seed [sha256.Size]byte, population int64, n int) []int64 {
	if population <= 0 || n <= 0 {
		return nil
	}
	if int64(n) >= population {
		all := make([]int64, population)
		for i := range all {
			all[i] = int64(i)
		}
		return all
	}
	size := uint64(population)
	bound := math.MaxUint64 - math.MaxUint64%size
	taken := make(map[int64]bool, n)
	block := make([]byte, sha256.Size+8)
	copy(block, seed[:])
	for i := uint64(0); len(taken) < n; i++ {
		binary.BigEndian.PutUint64(block[sha256.Size:], i)
		sum := sha256.Sum256(block)
		if v := binary.BigEndian.Uint64(sum[:8]); v < bound {
			taken[int64(v%size)] = true
		}
	}
	places := make([]int64, 0, n)
	for p := range taken {
		places = append(places, p)
	}
	slices.Sort(places)
	return places
}

// queryText renders filters that are joined by "or"; equal questions have equal text.
func queryText(anyOf []csf.Filter) string {
	texts := make([]string, len(anyOf))
	for i, f := range anyOf {
		texts[i] = f.String()
		if len(anyOf) > 1 {
			texts[i] = "(" + texts[i] + ")"
		}
	}
	return strings.Join(texts, " or ")
}

// samples draws from the population of each control that has one. Controls with the same population are answered by
// one question to the store.
func (c *collector) samples() {
	var root [sha256.Size]byte
	drawn := false
	if c.in.Log != nil {
		raw, err := base64.StdEncoding.DecodeString(c.in.Log.Root)
		if drawn = err == nil && len(raw) == len(root); drawn {
			copy(root[:], raw)
		} else {
			c.gap("data", "samples", fmt.Sprintf("nothing is drawn: the checkpoint's root %q is not the base64 of 32 bytes", c.in.Log.Root))
		}
	}
	size := c.in.SampleSize
	if size <= 0 {
		size = sampleSize
	}
	filters := map[string][]csf.Filter{}
	wanted := map[string][]int64{}
	for _, k := range csf.Controls() {
		i := slices.IndexFunc(c.model.Controls, func(m Control) bool { return m.ID == k.ID })
		if i < 0 || len(k.Population) == 0 || !c.model.Controls[i].Facts.Known {
			continue
		}
		s := Sample{Control: k.ID, Query: queryText(k.Population), Population: c.model.Controls[i].Facts.Population, Leaves: []int64{}, Events: []string{}}
		if drawn && s.Population > 0 {
			seed := SampleSeed(root, k.ID)
			s.Seed, s.Places = hex.EncodeToString(seed[:]), Draw(seed, s.Population, size)
			filters[s.Query] = k.Population
			wanted[s.Query] = append(wanted[s.Query], s.Places...)
		}
		c.model.Samples = append(c.model.Samples, s)
	}
	events := map[string]map[int64]csf.Event{}
	for query, places := range wanted {
		slices.Sort(places)
		places = slices.Compact(places)
		found, err := c.facts.At(c.ctx, filters[query], c.period, places)
		if err == nil && len(found) != len(places) {
			err = fmt.Errorf("%d of %d drawn events were found", len(found), len(places))
		}
		events[query] = map[int64]csf.Event{}
		if err != nil {
			continue
		}
		for i, e := range found {
			events[query][places[i]] = e
		}
	}
	for i := range c.model.Samples {
		c.fill(&c.model.Samples[i], events[c.model.Samples[i].Query])
	}
}

// fill names the drawn events and their leaves.
func (c *collector) fill(s *Sample, events map[int64]csf.Event) {
	for _, place := range s.Places {
		e, ok := events[place]
		if !ok {
			c.gap("data", s.Control, "the drawn events could not be read, so the sample is not complete")
			return
		}
		s.Events = append(s.Events, e.Node+"/"+strconv.FormatUint(e.Seq, 10))
		if c.in.Leaf == nil {
			continue
		}
		leaf, err := c.in.Leaf(c.ctx, e)
		if err != nil {
			c.gap("data", s.Control, "the leaves of the sample could not be read: "+err.Error())
			s.Leaves = []int64{}
			return
		}
		s.Leaves = append(s.Leaves, leaf)
	}
}
