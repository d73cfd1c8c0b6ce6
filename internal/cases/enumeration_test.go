package cases

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csfproxy/csfproxy/proxy/wire"
)

// TestEnumerationByTime: a wrong password of a user who exists and one of a user who does not take the same way through the
// ingress and get the same answer (AU-24). The times are logged; with CSFPROXY_FULL=1 there are a thousand of each, in turn, and
// their medians must be closer than a millisecond, the case's own bound.
func TestEnumerationByTime(t *testing.T) {
	in := start(t, roomy)
	n := scaled(30, 1000)
	users := []string{"app", "nobody"}
	times, answers := map[string][]time.Duration{}, map[string]map[string]bool{"app": {}, "nobody": {}}
	for range n {
		for _, user := range users {
			c := in.raw(t)
			c.SetDeadline(time.Now().Add(30 * time.Second))
			began := time.Now()
			c.Write(startup(user))
			if _, _, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16); err != nil {
				t.Fatal(err)
			}
			first, err := wire.AppendSASLInitialResponse(nil, "SCRAM-SHA-256", []byte("n,,n=,r=abcdefghijklmnopqrstuvwx"))
			if err != nil {
				t.Fatal(err)
			}
			c.Write(first)
			_, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
			if err != nil {
				t.Fatal(err)
			}
			nonce, _, _ := strings.Cut(string(body[4:]), ",")
			final, err := wire.AppendSASLResponse(nil, []byte("c=biws,"+nonce+",p="+strings.Repeat("A", 43)+"="))
			if err != nil {
				t.Fatal(err)
			}
			c.Write(final)
			typ, body, err := wire.ReadFrame(c, wire.Backend, nil, 1<<16)
			if err != nil {
				t.Fatal(err)
			}
			times[user] = append(times[user], time.Since(began))
			answers[user][fmt.Sprintf("%c%q", typ, body)] = true
			c.Close()
		}
	}
	if a, b := fmt.Sprint(answers["app"]), fmt.Sprint(answers["nobody"]); a != b || len(answers["app"]) != 1 {
		t.Errorf("%s and %s", a, b)
	}
	var medians []time.Duration
	for _, user := range users {
		slices.Sort(times[user])
		medians = append(medians, times[user][n/2])
	}
	t.Logf("%d wrong passwords each: median %s for a user who exists, %s for one who does not", n, medians[0], medians[1])
	if d := medians[0] - medians[1]; os.Getenv("CSFPROXY_FULL") != "" && (d > time.Millisecond || d < -time.Millisecond) {
		t.Errorf("the medians differ by %s", d)
	}
}
