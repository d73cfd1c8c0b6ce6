package store

import (
	"bytes"
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// point is a place on the way of an event at which a fault strikes.
type point string

// The points, in the order in which an event passes them.
const (
	beforeWrite    point = "before the write"
	inWrite        point = "in the middle of the write"
	afterWrite     point = "after the write"
	beforeSync     point = "before the fsync"
	afterSync      point = "after the fsync"
	acknowledged   point = "after the acknowledgement"
	beforeCreate   point = "before the next segment is made"
	afterCreate    point = "after the next segment is made"
	beforeCopy     point = "before COPY"
	inCopy         point = "in COPY"
	beforeCommit   point = "after COPY, before the commit"
	commitSent     point = "after the commit is sent"
	commitAnswered point = "after the commit, before its answer is heard"
	beforeRemove   point = "after the commit, before the spool is shortened"
	afterRemove    point = "after a segment is removed"
)

// faults says what strikes where: an error that the call gives, or the end of the process.
type faults struct {
	mu      sync.Mutex
	strikes map[point]func() error
}

func (f *faults) set(p point, strike func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.strikes == nil {
		f.strikes = map[point]func() error{}
	}
	f.strikes[p] = strike
}

// fail lets every call at the point fail.
func (f *faults) fail(p point, err error) { f.set(p, func() error { return err }) }

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.strikes)
}

func (f *faults) strike(p point) func() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.strikes[p]
}

func (f *faults) hit(p point) error {
	if strike := f.strike(p); strike != nil {
		return strike()
	}
	return nil
}

// faultyFiles is a file system that remembers what fsync has covered.
type faultyFiles struct {
	*faults

	mu    sync.Mutex
	files map[string]*faultyFile // by path, the newest of each
}

func (f *faultyFiles) Create(path string) (segmentFile, error) {
	if err := f.hit(beforeCreate); err != nil {
		return nil, err
	}
	file, err := osFiles{}.Create(path)
	if err != nil {
		return nil, err
	}
	return f.keep(path, &faultyFile{segmentFile: file, faults: f.faults}), f.hit(afterCreate)
}

func (f *faultyFiles) Open(path string) (segmentFile, error) {
	file, err := osFiles{}.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return f.keep(path, &faultyFile{segmentFile: file, faults: f.faults, end: info.Size()}), nil
}

func (f *faultyFiles) keep(path string, file *faultyFile) segmentFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files == nil {
		f.files = map[string]*faultyFile{}
	}
	f.files[path] = file
	return file
}

func (f *faultyFiles) Remove(path string) error {
	if err := f.hit(beforeRemove); err != nil {
		return err
	}
	if err := (osFiles{}).Remove(path); err != nil {
		return err
	}
	return f.hit(afterRemove)
}

// powerCut leaves of each file what fsync has covered. The spool must be closed.
func (f *faultyFiles) powerCut() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, file := range f.files {
		if err := os.Truncate(path, file.synced); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

type faultyFile struct {
	segmentFile
	faults *faults

	mu          sync.Mutex
	end, synced int64
}

func (f *faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.faults.hit(beforeWrite); err != nil {
		return 0, err
	}
	done := 0
	if f.faults.strike(inWrite) != nil {
		n, err := f.write(b[:len(b)/2], off)
		if err == nil {
			err = f.faults.hit(inWrite)
		}
		if err != nil {
			return n, err
		}
		done = n
	}
	n, err := f.write(b[done:], off+int64(done))
	if err == nil {
		err = f.faults.hit(afterWrite)
	}
	return done + n, err
}

func (f *faultyFile) write(b []byte, off int64) (int, error) {
	n, err := f.segmentFile.WriteAt(b, off)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = max(f.end, off+int64(n))
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	err := f.segmentFile.Truncate(size)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end, f.synced = size, min(f.synced, size)
	return err
}

func (f *faultyFile) Sync() error {
	if err := f.faults.hit(beforeSync); err != nil {
		return err
	}
	f.mu.Lock()
	end := f.end
	f.mu.Unlock()
	if err := f.segmentFile.Sync(); err != nil {
		return err
	}
	f.mu.Lock()
	f.synced = end
	f.mu.Unlock()
	return f.faults.hit(afterSync)
}

// dial connects to PostgreSQL with the faults on the wire.
func (f *faults) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, faults: f}, nil
}

// faultyConn knows where in the transaction of a batch its connection is. Whoever strikes with an error cuts it.
type faultyConn struct {
	net.Conn
	faults *faults

	// These belong to the writing goroutine.
	copying bool // COPY was asked for, no row was sent
	batch   bool // the transaction holds a COPY

	asked atomic.Bool // the commit of a batch is sent, its answer is not here
}

func (c *faultyConn) Write(b []byte) (int, error) {
	switch {
	case bytes.Contains(b, []byte(copyStatement)):
		if err := c.hit(beforeCopy); err != nil {
			return 0, err
		}
		c.copying, c.batch = true, true
	case c.copying && b[0] == 'd':
		c.copying = false
		if c.faults.strike(inCopy) == nil {
			break
		}
		n, err := c.Conn.Write(b[:len(b)/2])
		if err == nil {
			err = c.hit(inCopy)
		}
		if err != nil {
			return n, err
		}
		rest, err := c.Conn.Write(b[n:])
		return n + rest, err
	case c.batch && bytes.HasSuffix(b, []byte("commit\x00")):
		c.batch = false
		if err := c.hit(beforeCommit); err != nil {
			return 0, err
		}
		c.asked.Store(true)
		n, err := c.Conn.Write(b)
		if err == nil {
			err = c.hit(commitSent)
		}
		return n, err
	}
	return c.Conn.Write(b)
}

func (c *faultyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.asked.CompareAndSwap(true, false) {
		if err := c.hit(commitAnswered); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (c *faultyConn) hit(p point) error {
	err := c.faults.hit(p)
	if err != nil {
		c.Conn.Close()
	}
	return err
}
