package proxy

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch sends to many sockets at once. A loop's turn then has one moment at which those that it has written to may take its
// processor, instead of one after each write: on a busy machine most of what a write costs is being put aside by whom it
// wakes. The sends never wait, so that all are over when send returns. A batch belongs to one goroutine.
type batch interface {
	// add takes b, as the n-th of the next send, for a socket that does not block. b must stay as it is until then.
	add(n int, fd int32, b []byte)
	// send sends the n that were added, and gives for each how many bytes the socket took or, negative, the error number.
	// Those that an error of the system call itself left undone are said to have failed with EIO.
	send(n int) ([]int32, error)
	close()
}

// makeBatch is what loops use; tests choose the way.
var makeBatch = newBatch

// newBatch gives the best that the system permits for up to size sends at once, a power of two; nil where it permits none.
func newBatch(size int) batch {
	if r, err := newRing(uint32(size)); err == nil {
		if works(r) {
			return r
		}
		r.close()
	}
	if a, err := newAIO(size); err == nil {
		if works(a) {
			return a
		}
		a.close()
	}
	return nil
}

// works says that two sends over sockets of our own end as they should: a system may have the calls and not what they are
// to do.
func works(b batch) bool {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	text := []byte("abc")
	defer runtime.KeepAlive(text)
	b.add(0, int32(fds[0]), text[:1])
	b.add(1, int32(fds[1]), text[1:])
	results, err := b.send(2)
	return err == nil && results[0] == 1 && results[1] == 2
}

func undone(results []int32) []int32 {
	for i := range results {
		results[i] = -int32(syscall.EIO)
	}
	return results
}

// ring is a batch of one system call (io_uring). It is empty between two sends. The layout is that of <linux/io_uring.h>,
// which the kernel keeps stable.
type ring struct {
	fd      int
	queues  []byte // the memory of both queues, one mapping (IORING_FEAT_SINGLE_MMAP)
	entries []byte // the submission queue's entries

	sqTail, cqHead, cqTail *uint32
	sqMask, cqMask         uint32
	sqes                   []submission
	cqes                   []completion
	results                []int32
}

// submission is struct io_uring_sqe as IORING_OP_SEND uses it.
type submission struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset, addr  uint64
	length        uint32
	message       uint32 // flags of send(2)
	user          uint64
	_             [24]byte
}

// completion is struct io_uring_cqe.
type completion struct {
	user   uint64
	result int32
	_      uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, thread, idle, features, wq uint32
	_                                                       [3]uint32
	sq                                                      struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
	cq                                                      struct{ head, tail, mask, entries, overflow, cqes, flags, _, _, _ uint32 }
}

const (
	ringOpSend        = 26 // IORING_OP_SEND, Linux 5.6
	ringSingleMmap    = 1  // IORING_FEAT_SINGLE_MMAP, Linux 5.4
	ringOffsetSQ      = 0
	ringOffsetEntries = 0x10000000
	ringGetEvents     = 1 // IORING_ENTER_GETEVENTS

	// mostTries bounds how often the system may say that it has no memory for a send.
	mostTries = 1000
)

// newRing gives a ring for up to size sends at once, a power of two. It fails where the system does not have io_uring or
// does not permit it, as in many containers.
func newRing(size uint32) (_ *ring, err error) {
	var p ringParams
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(size), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if p.features&ringSingleMmap == 0 {
		return nil, errors.New("io_uring: this kernel's is too old (Linux 5.6 or newer is needed)")
	}
	unix.CloseOnExec(r.fd)
	length := max(int(p.sq.array+p.sqEntries*4), int(p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{}))))
	if r.queues, err = unix.Mmap(r.fd, ringOffsetSQ, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("io_uring: %w", os.NewSyscallError("mmap", err))
	}
	if r.entries, err = unix.Mmap(r.fd, ringOffsetEntries, int(p.sqEntries)*int(unsafe.Sizeof(submission{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("io_uring: %w", os.NewSyscallError("mmap", err))
	}
	word := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queues[offset])) }
	r.sqTail, r.sqMask = word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.sqes = unsafe.Slice((*submission)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*completion)(unsafe.Pointer(&r.queues[p.cq.cqes])), p.cqEntries)
	r.results = make([]int32, p.sqEntries)
	for i := range p.sqEntries { // the n-th place of the queue is always the n-th entry
		*word(p.sq.array + 4*i) = i
	}
	return r, nil
}

func (r *ring) add(n int, fd int32, b []byte) {
	r.sqes[(*r.sqTail+uint32(n))&r.sqMask] = submission{
		opcode: ringOpSend, fd: fd, addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), length: uint32(len(b)),
		message: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: uint64(n),
	}
}

func (r *ring) send(n int) ([]int32, error) {
	results := undone(r.results[:n])
	atomic.StoreUint32(r.sqTail, *r.sqTail+uint32(n))
	for sent, done, tries := 0, 0, 0; done < n; {
		k, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n-sent), uintptr(n-done), ringGetEvents, 0, 0)
		if tries++; errno != 0 && (errno != syscall.EINTR && errno != syscall.EAGAIN || tries > mostTries) {
			return results, os.NewSyscallError("io_uring_enter", errno)
		}
		if errno == 0 {
			sent += int(k)
		}
		head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
		for ; head != tail; head++ {
			c := &r.cqes[head&r.cqMask]
			results[c.user] = c.result
			done++
		}
		atomic.StoreUint32(r.cqHead, head)
	}
	return results, nil
}

func (r *ring) close() {
	if r.entries != nil {
		unix.Munmap(r.entries)
	}
	if r.queues != nil {
		unix.Munmap(r.queues)
	}
	unix.Close(r.fd)
}
