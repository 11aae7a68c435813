package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"propeller/apnsconn/apnstest"
)

// openTerminal opens a pseudoterminal (pty(7)) of a size: what the one side is
// written, the other reads.
func openTerminal(t *testing.T, rows, columns uint16) (screen, program *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	ioctl := func(request uintptr, at unsafe.Pointer) {
		t.Helper()
		raw, err := screen.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var errno syscall.Errno
		err = raw.Control(func(fd uintptr) { _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(at)) })
		if err != nil || errno != 0 {
			t.Fatal(err, errno)
		}
	}
	var locked, number int32
	ioctl(syscall.TIOCSPTLCK, unsafe.Pointer(&locked))
	ioctl(syscall.TIOCGPTN, unsafe.Pointer(&number))
	size := [4]uint16{rows, columns}
	ioctl(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return screen, program
}

// On a terminal status --watch draws in place, in colour and no longer than the
// terminal, and leaves it as it was.
func TestStatusWatchOnATerminal(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.stateful()
	s.cert("com.example.second")
	s.cert("com.example.third")
	s.configure(topic, "com.example.second", "com.example.third")
	s.stateful()
	startDaemon(t, s.dir).says("propeller started")
	const rows = 6
	screen, tty := openTerminal(t, rows, 90)
	cmd := program("status", "--watch")
	cmd.Stdout = tty
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=")
	w, err := startProgram(t, s.dir, cmd)
	if err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var (
		mu   sync.Mutex
		text strings.Builder
		read sync.WaitGroup
	)
	read.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := screen.Read(buf)
			mu.Lock()
			text.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return // the program has gone
			}
		}
	})
	shown := func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
	until(t, "two looks", func() bool { return strings.Count(shown(), "3 apps, all ready") >= 2 })
	w.signal(syscall.SIGINT)
	if status := w.exit(); status != exitOK {
		t.Errorf("status %d: %s", status, w.log())
	}
	read.Wait()
	all := shown()
	if !strings.HasPrefix(all, enterScreen+cursorHome) || !strings.HasSuffix(all, leaveScreen) {
		t.Errorf("the screen is not left as it was: %q", all)
	}
	for _, frame := range strings.Split(all, cursorHome)[1:] {
		if n := strings.Count(frame, "\n") + 1; n > rows || !strings.Contains(frame, "\x1b["+grey+"midle") || !strings.Contains(frame, "… and 1 more") {
			t.Errorf("%d lines: %q", n, frame)
		}
	}
}
