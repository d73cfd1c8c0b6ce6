package wire

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// acceptTime bounds TestDifferentialAcceptance; CSFPROXY_DIFFERENTIAL is another duration, such as 10m.
const acceptTime = 12 * time.Second

// reactionOf tells PostgreSQL's reaction to a whole sequence.
func reactionOf(answers string) string {
	if strings.Contains(answers, "E(FATAL") {
		return "fatal"
	}
	return "passes or closes"
}

// hostile adds messages that are wrong in themselves or in their place, to a sequence of generate.
func hostile(r *rand.Rand) [][]byte {
	call := func(oid uint32, arguments ...string) []byte {
		var list [][]byte
		for _, a := range arguments {
			list = append(list, []byte(a))
		}
		return must(AppendFunctionCall(nil, oid, list...))
	}
	// PostgreSQL makes the portal before it reads the values, and leaves an empty one behind until the transaction has ended.
	// Here the Bind never arrives: nobody else uses the portal h.
	negative := []byte{0xff, 0xff, 0xff, 0xfe}
	one := [][][]byte{
		{call(177, "1", "2")}, {call(177, "1")}, {call(177, "1", "x")}, {call(0)}, {call(4711)},
		{cat(mParse("", "select $1"), msg('B', "h", "", 0, 1, negative, 0), mSync)},
		{cat(mParse("", "select $1"), msg('B', "h", "", 0, 1, []byte{0, 0, 1, 0}, 0), mSync)},
		{cat(mParse("", "select $1"), mBind("", "", "1", "2"), mSync)},
		{cat(mParse("", "select $1"), msg('B', "h", "", 2, 0, 0, 1, negative, 0), mSync)},
		{cat(mParse("", "select 1"), msg('B', "h", "", 0, 0, 0, byte(9)), mSync)},
		{msg('P', "a", "select 1", 2, 0, 23), mSync}, {msg('P', "a", "select $1", 1, 0, 23, byte(1)), mSync},
		{msg('E', "", 0), mSync}, {msg('D', byte('S'), "", "x"), mSync}, {msg('C', byte('S')), mSync}, {msg('D'), mSync},
		{msg('Q', []byte("select 1"))}, {msg('Q', "select 1", []byte("x"))}, {msg('H', "x"), mSync},
		{cat(mParse("p", "select 1"), mParse("p", "select 2"), mSync)}, {mClose('P', "nope"), mSync},
		{mQuery("copy t from stdin"), cat(msg('f', []byte("no terminator")), mCopyDone)},
		{mQuery("select pg_notify('n','x')")}, {mQuery("listen n; notify n")}, {mQuery("set client_encoding to latin1")},
	}
	return one[r.IntN(len(one))]
}

// ending gives a last message after which PostgreSQL does not go on, or nothing; each comes up in every two dozen seeds.
func ending(seed uint64) []byte {
	all := [][]byte{nil, nil, nil,
		msg('z', "x"), msg(0, "x"), msg(0xff), msg('p', "password"), msg('R', 0, 0), msg('T', 0),
		header('Q', 3), header('Q', 0), header('P', 0x80000000), header('S', 10001), header('d', 0xffffffff), header('E', 0x3fffffff),
		header('Q', 100), cat(header('B', 100), []byte("abc")), {'Q', 0, 0}, AppendTerminate(nil), AppendSSLRequest(nil),
		must(AppendStartupMessage(nil, Version30, []Parameter{{"user", "postgres"}})), []byte("GET / HTTP/1.1\r\n\r\n"),
	}
	return all[seed%uint64(len(all))]
}

// TestDifferentialAcceptance sends generated sequences, hostile ones too, to PostgreSQL directly and as the tables let them
// through, in ordinary and in replication sessions. What each accepts, refuses and answers must be the same, and no
// answer of PostgreSQL's may be called a violation.
func TestDifferentialAcceptance(t *testing.T) {
	limit := acceptTime
	if v := os.Getenv("CSFPROXY_DIFFERENTIAL"); v != "" {
		var err error
		if limit, err = time.ParseDuration(v); err != nil {
			t.Fatalf("CSFPROXY_DIFFERENTIAL: %v", err)
		}
	}
	if err := start(); err != nil {
		t.Fatal("start PostgreSQL:", err)
	}
	setup := cat(mQuery("create temp table t (a int); create temp table deferred (a int, unique (a) deferrable initially deferred); " +
		"insert into deferred values (1)"))
	refuse := func(f Frame) *Denial {
		if bytes.HasPrefix(f.Text(), []byte("forbidden")) {
			return &Denial{SQLSTATE: "42501", Message: "statement refused by policy"}
		}
		return nil
	}
	var mu sync.Mutex
	seen, reactions := map[string]int{}, map[string]int{}
	var next, messages atomic.Uint64
	end := time.Now().Add(limit)
	one := func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		sends := [][]byte{setup}
		for range 1 + r.IntN(3) {
			sends = append(sends, generate(r, 1+r.IntN(6))...)
			sends = append(sends, hostile(r)...)
		}
		sends = append(sends, mSync)
		if last := ending(seed); last != nil {
			sends = append(sends, last)
		}
		var parameters []Parameter
		decide := refuse
		if seed%4 == 3 { // where every message of the extended protocol fails in the same way, whoever refuses it
			decide = nil
			parameters = []Parameter{{"replication", "database"}}
			sends = append([][]byte{mQuery("IDENTIFY_SYSTEM"), mQuery("SHOW work_mem")}, sends...)
		}
		want := comparable(direct(t, sends, parameters...))
		got, relay := through(t, sends, seed%2 == 0, decide, parameters...)
		got = strings.ReplaceAll(comparable(got), "E(ERROR 42501)", "E(ERROR 42601)")
		got, want = insideCopy(relay, got, want)
		if got != want {
			t.Errorf("seed %d\nthrough: %s\ndirect:  %s\nended %v %+v\nsent: %s", seed, got, want, relay.ended, relay.why, types(cat(sends...)))
			for _, s := range sends {
				t.Logf("%q", s)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		reactions[reactionOf(want)]++
		for _, s := range sends {
			for _, w := range strings.Fields(types(s)) {
				seen[w[:1]]++
				messages.Add(1)
			}
		}
	}
	t.Run("sequences", func(t *testing.T) {
		for worker := range 6 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				// At least so many, however slow the machine is; the same ones each time, longer runs go on from there.
				for seed := next.Add(1); seed <= 120 || time.Now().Before(end); seed = next.Add(1) {
					one(t, seed)
				}
			})
		}
	})
	t.Logf("%d sequences, %d messages, types %s; %v", next.Load(), messages.Load(), strings.Join(slices.Sorted(maps.Keys(seen)), ""), reactions)
	for _, typ := range "QPBDECSHdcfFXp" {
		if seen[string(typ)] == 0 {
			t.Errorf("no %c was sent", typ)
		}
	}
	if reactions["fatal"] == 0 || reactions["passes or closes"] == 0 {
		t.Errorf("only one kind of reaction: %v", reactions)
	}
}
