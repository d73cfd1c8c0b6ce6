package proxy

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aio sends to many sockets with two system calls, by the older asynchronous I/O of Linux (io_submit), for where io_uring is
// not permitted: the default profiles of container runtimes permit this. Sockets that do not block have taken what they
// take when io_submit returns. The layout is that of <linux/aio_abi.h>.
type aio struct {
	context uintptr
	blocks  []controlBlock
	list    []*controlBlock
	events  []aioEvent
	results []int32
}

// controlBlock is struct iocb.
type controlBlock struct {
	data      uint64
	_         [2]uint32 // key and flags, in the order of the machine's bytes
	operation uint16
	_         int16 // priority
	fd        uint32
	buffer    uint64
	length    uint64
	_         [3]uint64 // offset and what a socket has no use for
}

// aioEvent is struct io_event.
type aioEvent struct {
	data, block uint64
	result, _   int64
}

const aioPwrite = 1 // IOCB_CMD_PWRITE

// newAIO gives an aio for up to size sends at once.
func newAIO(size int) (*aio, error) {
	a := &aio{blocks: make([]controlBlock, size), list: make([]*controlBlock, size), events: make([]aioEvent, size), results: make([]int32, size)}
	for i := range a.blocks {
		a.list[i] = &a.blocks[i]
	}
	if _, _, errno := syscall.Syscall(unix.SYS_IO_SETUP, uintptr(size), uintptr(unsafe.Pointer(&a.context)), 0); errno != 0 {
		return nil, os.NewSyscallError("io_setup", errno)
	}
	return a, nil
}

func (a *aio) add(n int, fd int32, b []byte) {
	a.blocks[n] = controlBlock{data: uint64(n), operation: aioPwrite, fd: uint32(fd), buffer: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), length: uint64(len(b))}
}

func (a *aio) send(n int) ([]int32, error) {
	results, wait := undone(a.results[:n]), 0
	for i := 0; i < n; {
		k, _, errno := syscall.RawSyscall(unix.SYS_IO_SUBMIT, a.context, uintptr(n-i), uintptr(unsafe.Pointer(&a.list[i])))
		if errno == syscall.EPERM || errno == syscall.ENOSYS { // the call is not permitted any more
			return results, os.NewSyscallError("io_submit", errno)
		}
		if errno != 0 { // the first of them could not even be begun
			results[i] = -int32(errno)
			i++
			continue
		}
		i += int(k)
		wait += int(k)
	}
	for wait > 0 {
		k, _, errno := syscall.RawSyscall6(unix.SYS_IO_GETEVENTS, a.context, uintptr(wait), uintptr(wait), uintptr(unsafe.Pointer(&a.events[0])), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return results, os.NewSyscallError("io_getevents", errno)
		}
		for _, e := range a.events[:k] {
			results[e.data] = int32(e.result)
		}
		wait -= int(k)
	}
	return results, nil
}

func (a *aio) close() { syscall.Syscall(unix.SYS_IO_DESTROY, a.context, 0, 0) }
