package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// All sessions of this package's tests send by batches, those that are alone on their loop too.
func init() { fewestPosts = 1 }

// batches are the ways to send, by name.
func batches(t *testing.T) map[string]batch {
	t.Helper()
	r, err := newRing(loopPosts)
	if err != nil {
		t.Logf("without io_uring: %v", err)
	}
	a, err := newAIO(loopPosts)
	if err != nil {
		t.Logf("without io_submit: %v", err)
	}
	all := map[string]batch{"calls": nil}
	if r != nil {
		all["ring"] = r
	}
	if a != nil {
		all["aio"] = a
	}
	t.Cleanup(func() {
		for _, b := range all {
			if b != nil {
				b.close()
			}
		}
	})
	return all
}

// pair gives two ends of a stream; the first does not block.
func pair(t *testing.T) (near int32, far *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	far = os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() {
		unix.Close(fds[0])
		far.Close()
	})
	return int32(fds[0]), far
}

func TestBatch(t *testing.T) {
	for name, b := range batches(t) {
		if b == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !works(b) {
				t.Fatal("it is said not to work")
			}
			const n = 7
			var near [n]int32
			var far [n]*os.File
			for i := range n {
				near[i], far[i] = pair(t)
			}
			for round := range 500 { // several times around the queues
				var texts [n][]byte // the kernel's only as a number: they must outlive the call
				for i := range n {
					texts[i] = fmt.Appendf(nil, "%04d.%d", round, i)
					b.add(i, near[i], texts[i])
				}
				results, err := b.send(n)
				runtime.KeepAlive(&texts)
				if err != nil {
					t.Fatal(err)
				}
				for i, res := range results {
					got := make([]byte, 6)
					if _, err := io.ReadFull(far[i], got); err != nil || string(got) != fmt.Sprintf("%04d.%d", round, i) || res != 6 {
						t.Fatalf("round %d: socket %d got %q, %v; result %d", round, i, got, err, res)
					}
				}
			}

			full, _ := pair(t)
			for {
				if _, errno := sysWrite(full, make([]byte, 64<<10)); errno != 0 {
					break
				}
			}
			gone, other := pair(t)
			other.Close()
			const closed = 1 << 20 // no descriptor is as high
			large, reader := pair(t)
			much := bytes.Repeat([]byte("x"), 4<<20)
			text := []byte("text")
			for i, fd := range []int32{full, closed, gone, near[0]} {
				b.add(i, fd, text)
			}
			b.add(4, large, much)
			results, err := b.send(5)
			runtime.KeepAlive(text)
			runtime.KeepAlive(much)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []syscall.Errno{syscall.EAGAIN, syscall.EBADF, syscall.EPIPE} {
				if results[i] != -int32(want) {
					t.Errorf("send %d gives %d, want %d (%v)", i, results[i], -int32(want), want)
				}
			}
			if results[3] != 4 {
				t.Errorf("a good socket among bad ones: %d", results[3])
			}
			if res := int(results[4]); res <= 0 || res >= len(much) {
				t.Errorf("a socket took %d of %d bytes", res, len(much))
			} else if got, err := io.ReadFull(reader, make([]byte, res)); err != nil {
				t.Errorf("of %d bytes %d came: %v", res, got, err)
			}
		})
	}
}

// stillLoop gives a loop that does not run and sends by b.
func stillLoop(t *testing.T, b batch) *loop {
	t.Helper()
	l, err := newLoop(nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(l.epoll)
		unix.Close(l.event)
	})
	if l.outbox.batch != nil {
		l.outbox.batch.close()
	}
	l.outbox.batch = b
	return l
}

// TestOutbox puts what a table says to the sides of sessions and looks at what their sockets got.
func TestOutbox(t *testing.T) {
	long, huge := bytes.Repeat([]byte("l"), mostPosted+1), bytes.Repeat([]byte("h"), 4<<20)
	tests := []struct {
		name   string
		puts   []string // "side:text", side a digit; or "side:long", "side:huge", "side:leave"
		before map[int]string
		want   map[int]string // after the turn
	}{
		{name: "one piece", puts: []string{"0:a"}, want: map[int]string{0: "a"}},
		{name: "joined", puts: []string{"0:a", "0:b", "0:c"}, want: map[int]string{0: "abc"}},
		{name: "several sides", puts: []string{"0:a", "1:b", "2:c"}, want: map[int]string{0: "a", 1: "b", 2: "c"}},
		{name: "behind another's", puts: []string{"0:a", "1:b", "0:c"}, before: map[int]string{0: "ac"}, want: map[int]string{0: "ac", 1: "b"}},
		{name: "more behind a little", puts: []string{"0:a", "0:long", "0:c"}, before: map[int]string{0: "a" + string(long)}, want: map[int]string{0: "a" + string(long) + "c"}},
		{name: "leaves", puts: []string{"0:a", "1:b", "0:leave", "0:c"}, before: map[int]string{0: "ac"}, want: map[int]string{0: "ac", 1: "b"}},
		{name: "does not read", puts: []string{"0:huge", "0:a", "1:b"}, want: map[int]string{0: string(huge) + "a", 1: "b"}},
	}
	for way, b := range batches(t) {
		for _, tt := range tests {
			t.Run(way+"/"+tt.name, func(t *testing.T) {
				l := stillLoop(t, b)
				l.now = time.Now()
				var sides [3]*side
				var far [3]*os.File
				for i := range sides {
					q := &seat{s: &Session{accepted: l.now.Add(-time.Second)}, loop: l}
					sides[i] = &q.client
					for _, d := range []*side{&q.client, &q.upstream} {
						d.seat = q
						fd, f := pair(t)
						d.fd = fd
						if d == &q.client {
							far[i] = f
						}
						if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Fd: fd}); err != nil {
							t.Fatal(err)
						}
						l.seats = append(l.seats, make([]place, int(fd)+1)...)
					}
				}
				got := map[int]string{}
				take := func(i int) {
					buf := make([]byte, 1<<20)
					for {
						n, err := readNow(far[i], buf)
						if errors.Is(err, unix.EAGAIN) {
							return
						}
						if err != nil {
							t.Fatal(err)
						}
						got[i] += string(buf[:n])
					}
				}
				for _, put := range tt.puts {
					d, text := sides[put[0]-'0'], []byte(put[2:])
					switch put[2:] {
					case "long":
						text = long
					case "huge":
						text = huge
					case "leave":
						l.leave(d.seat, nil, nil)
						continue
					}
					if err := d.put(text); err != nil {
						t.Fatal(err)
					}
					l.settle(d.seat)
				}
				for i := range sides {
					if tt.name == "does not read" {
						break
					}
					take(i)
					if got[i] != tt.before[i] {
						t.Errorf("before the end of the turn side %d has %.40q, want %.40q", i, got[i], tt.before[i])
					}
				}
				l.deliver()
				for i, d := range sides {
					take(i)
					for waiting := len(d.out) > 0; waiting; waiting = len(d.out) > 0 {
						if d.seat.s.writing.Load() == 0 || d.mask&unix.EPOLLOUT == 0 {
							t.Fatalf("side %d holds %d bytes: writing since %d, waiting for %#x", i, len(d.out), d.seat.s.writing.Load(), d.mask)
						}
						if err := d.flush(); err != nil {
							t.Fatal(err)
						}
						take(i)
					}
					if got[i] != tt.want[i] {
						t.Errorf("side %d has %d bytes, %.40q, want %d, %.40q", i, len(got[i]), got[i], len(tt.want[i]), tt.want[i])
					}
					if d.posted != 0 {
						t.Errorf("side %d is still in the outbox", i)
					}
				}
				if len(l.outbox.posts) != 0 || l.outbox.filled != 0 {
					t.Errorf("%d pieces, %d bytes are left", len(l.outbox.posts), l.outbox.filled)
				}
			})
		}
	}
}

// TestOutboxDoesNotAllocate leaves pieces for several sides and delivers them, each way.
func TestOutboxDoesNotAllocate(t *testing.T) {
	for way, b := range batches(t) {
		t.Run(way, func(t *testing.T) {
			l := stillLoop(t, b)
			var sides [5]*side
			var far [5]*os.File
			for i := range sides {
				q := &seat{s: &Session{}, loop: l}
				q.client.seat = q
				q.client.fd, far[i] = pair(t)
				sides[i] = &q.client
			}
			text, got := []byte("answer"), make([]byte, 12)
			if n := testing.AllocsPerRun(100, func() {
				for range 2 {
					for _, d := range sides {
						if err := d.put(text); err != nil {
							t.Fatal(err)
						}
					}
				}
				l.deliver()
				for _, f := range far {
					if _, err := io.ReadFull(f, got); err != nil || string(got) != "answeranswer" {
						t.Fatalf("%q, %v", got, err)
					}
				}
			}); n != 0 {
				t.Errorf("%v allocations for each turn", n)
			}
		})
	}
}

// SendBy makes the loops that start during the test send in one way: "ring", "aio" or "calls". It skips the test where the
// system does not permit it.
func SendBy(t *testing.T, way string) {
	before := makeBatch
	t.Cleanup(func() { makeBatch = before })
	makeBatch = func(size int) batch {
		switch way {
		case "ring":
			if r, err := newRing(uint32(size)); err == nil {
				return r
			}
		case "aio":
			if a, err := newAIO(size); err == nil {
				return a
			}
		}
		return nil
	}
	if b := makeBatch(2); b != nil {
		b.close()
	} else if way != "calls" {
		t.Skip("the system does not permit it")
	}
}

// readNow reads what is there.
func readNow(f *os.File, b []byte) (int, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	n := 0
	cerr := c.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
		return true
	})
	return n, errors.Join(cerr, err)
}
