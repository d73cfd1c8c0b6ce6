package wire

import (
	"regexp"
	"strings"
	"testing"
	"unsafe"
)

// TestWalsender follows real replication commands: streaming ended by the client, a base backup, errors, and SQL in
// between.
func TestWalsender(t *testing.T) {
	conn := login(t, Parameter{"replication", "database"})
	r := newRelay(t, Limits{}, Options{Replication: true})
	buf := make([]byte, 1<<16)
	written := 0
	until := func(done func() bool) {
		t.Helper()
		for !done() {
			if _, err := conn.Write(r.toServer[written:]); err != nil {
				t.Fatal(err)
			}
			written = len(r.toServer)
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if r.server(buf[:n]); r.ended != StopNone {
				t.Fatalf("ended by %v in %s: %+v", r.ended, stateTerm(r.c.state), r.why)
			}
		}
	}
	idle := func() bool { return r.c.Idle() }
	for _, tt := range []struct{ command, want string }{
		{"IDENTIFY_SYSTEM", "T D C ZI"},
		{"SHOW work_mem", "T D C ZI"},
		{"select 1", "T D C ZI"},
		{"START_REPLICATION PHYSICAL 0/1000000 TIMELINE 1", "W c C C ZI"},
		{"START_REPLICATION SLOT nope LOGICAL 0/0", "E(ERROR 42704) ZI"},
		{"IDENTIFY_SYSTEM garbage", "E(ERROR 42601) ZI"},
		{"BASE_BACKUP (CHECKPOINT 'fast', WAIT false)", "T D C T D C H d c T D C C ZI"},
		{"IDENTIFY_SYSTEM", "T D C ZI"},
	} {
		r.toClient = r.toClient[:0]
		r.client(mQuery(tt.command))
		if strings.HasPrefix(tt.command, "START_REPLICATION PHYSICAL") {
			until(func() bool { return r.c.copy == copyBoth })
			r.client(msg('d', byte('r'), make([]byte, 33)))
			r.client(mCopyDone)
		}
		until(idle)
		got := regexp.MustCompile(`( [SN])+\b`).ReplaceAllString(types(r.toClient), "")
		got = regexp.MustCompile(`d( d)+`).ReplaceAllString(got, "d")
		// What there was to stream depends on the time.
		if got = strings.Replace(got, "W d", "W", 1); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.command, got, tt.want)
		}
	}
}

// TestIdleSize keeps an idle Conversation a sixth of a session's 3 KiB.
func TestIdleSize(t *testing.T) {
	size := unsafe.Sizeof(Conversation{})
	t.Logf("%d bytes", size)
	if size > 512 {
		t.Errorf("%d bytes", size)
	}
}
