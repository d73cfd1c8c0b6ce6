package app

import (
	"math"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/reports/api"
)

// TestLatencyBucketsAreNarrow holds every bucket's end to at most a quarter above the durations in it.
func TestLatencyBucketsAreNarrow(t *testing.T) {
	for us := uint64(0); us <= math.MaxUint32; us += us/7 + 1 {
		b := latencyBucket(uint32(us))
		if end := latencyEnd(b); b >= latencyBuckets || end < int64(us) || float64(end) > 1.25*float64(us) {
			t.Fatalf("%d µs: bucket %d ends at %d", us, b, end)
		}
	}
	if b := latencyBucket(math.MaxUint32); b != latencyBuckets-1 {
		t.Errorf("the longest duration is in bucket %d of %d", b, latencyBuckets)
	}
}

func TestLatencyQuantiles(t *testing.T) {
	var l latency
	before := l.read()
	for us := range uint32(1000) {
		l.add(us + 1)
	}
	c := l.read().since(before)
	for q, want := range map[float64]int64{0.5: 500, 0.95: 950, 0.99: 990} {
		if got := c.quantile(q); got < want || float64(got) > 1.25*float64(want) {
			t.Errorf("quantile %v: %d, want %d to a quarter more", q, got, want)
		}
	}
	if none := (latencyCounts{}).quantile(0.5); none != 0 {
		t.Errorf("of none: %d", none)
	}
}

func TestLoadSeriesKeepsTheNewest(t *testing.T) {
	var l loadSeries
	at := time.Unix(1_700_000_000, 0)
	for i := range loadKept + 10 {
		l.add(api.LoadSample{Time: at.Add(time.Duration(i) * time.Second)})
	}
	list, err := l.Load(t.Context(), time.Time{})
	if err != nil || len(list) != loadKept {
		t.Fatalf("%d samples, %v", len(list), err)
	}
	for i, s := range list {
		if want := at.Add(time.Duration(i+10) * time.Second); !s.Time.Equal(want) {
			t.Fatalf("sample %d is of %v, want %v", i, s.Time, want)
		}
	}
}
