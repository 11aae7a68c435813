// Package beanstalktest starts real beanstalkd servers for tests.
//
//	srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
//	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{srv.Addr()}})
//	srv.Kill()    // kill -9
//	srv.Restart() // same port, same binlog
//
// A server ends with its test, and on Linux with the test process.
package beanstalktest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/heldport"
)

// startTimeout is for a started server to answer; generous, the machine may be busy.
const startTimeout = 20 * time.Second

// Option changes how a server is started.
type Option func(*Server)

// WithBinlog gives the server a log (-b) in a directory of the test's own, so
// that its jobs survive Kill and Stop.
func WithBinlog() Option {
	return func(s *Server) { s.args = append(s.args, "-b", s.t.TempDir()) }
}

// WithArgs adds command line arguments of beanstalkd, such as "-z", "100".
func WithArgs(args ...string) Option {
	return func(s *Server) { s.args = append(s.args, args...) }
}

// Server is one beanstalkd on a loopback port of its own. Its methods fail the
// test when they fail; call them from the test's goroutine only.
type Server struct {
	t    testing.TB
	bin  string
	port int
	args []string

	cmd    *exec.Cmd     // nil while the server is down
	exited chan struct{} // closed when cmd has ended
	out    lockedBuffer
}

// Start starts a beanstalkd and waits until it answers.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	bin, err := find()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, bin: bin}
	for _, o := range opts {
		o(s)
	}
	t.Cleanup(s.cleanup)
	port, err := heldport.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Close)
	s.port = port.Number()
	if err = s.start(); err != nil {
		t.Fatalf("beanstalktest: no beanstalkd started: %v\n%s", err, s.out.String())
	}
	return s
}

// find returns the path of beanstalkd.
func find() (string, error) {
	if bin, err := exec.LookPath("beanstalkd"); err == nil {
		return bin, nil
	}
	// Debian puts it where the PATH of a plain user may not look.
	for _, bin := range []string{"/usr/bin/beanstalkd", "/usr/sbin/beanstalkd", "/usr/local/bin/beanstalkd", "/opt/homebrew/bin/beanstalkd"} {
		if _, err := os.Stat(bin); err == nil {
			return bin, nil
		}
	}
	return "", errors.New("beanstalktest: beanstalkd is not installed: run `make test`, which installs it, or `apt-get install beanstalkd` / `brew install beanstalkd`")
}

// Addr is host:port, the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL is the address as propeller.yaml writes it.
func (s *Server) URL() string { return "beanstalk://" + s.Addr() }

// PID is the process id of the running server; 0 while it is down.
func (s *Server) PID() int {
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// Dial returns a plain connection, closed with the test: the foreign client
// that puts, peeks and kicks. The caller keeps to valid tube names.
func (s *Server) Dial() *gobeanstalk.Conn {
	s.t.Helper()
	c, err := gobeanstalk.DialTimeout("tcp", s.Addr(), startTimeout)
	if err != nil {
		s.t.Fatalf("beanstalktest: %v", err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Stop ends the server as an init system would (SIGTERM) and waits for it.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server with kill -9 and waits for it.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Restart starts the server again on its port, with its binlog if it has one.
// A running one is killed (-9) before.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	deadline := time.Now().Add(startTimeout)
	for {
		err := s.start()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("beanstalktest: restart on port %d: %v\n%s", s.port, err, s.out.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Freeze stops the process without ending it (SIGSTOP): its connections stay
// open and nothing answers.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on (SIGCONT).
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

// Drain puts the server in drain mode (SIGUSR1): it answers DRAINING to every
// put until it is restarted.
func (s *Server) Drain() { s.signal(syscall.SIGUSR1) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatalf("beanstalktest: %v: the server is down", sig)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("beanstalktest: %v: %v", sig, err)
	}
}

// start runs the process and waits until it, and no other, answers.
func (s *Server) start() error {
	args := append([]string{"-l", "127.0.0.1", "-p", strconv.Itoa(s.port)}, s.args...)
	cmd := exec.Command(s.bin, args...)
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		defer close(exited)
		_ = cmd.Wait() // how it ended is the test's own doing
	}(s.exited)

	deadline := time.Now().Add(startTimeout)
	for {
		pid, err := askPID(s.Addr())
		switch {
		case err == nil && pid == strconv.Itoa(cmd.Process.Pid):
			return nil
		case err == nil: // another server has the port
			err = fmt.Errorf("port %d belongs to process %s", s.port, pid)
			s.Kill()
			return err
		case time.Now().After(deadline):
			s.Kill()
			return fmt.Errorf("no answer within %v: %w", startTimeout, err)
		}
		select {
		case <-s.exited:
			s.cmd = nil
			return fmt.Errorf("ended at once: %v", cmd.ProcessState)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// end signals the process and waits for its end. A server that is down stays so.
func (s *Server) end(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig) // fails only when it has ended already
	<-s.exited
	s.cmd = nil
}

func (s *Server) cleanup() {
	s.Kill()
	if out := s.out.String(); s.t.Failed() && out != "" {
		s.t.Logf("beanstalkd said:\n%s", out)
	}
}

// askPID asks the server at addr for its process id.
func askPID(addr string) (string, error) {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	stats, err := gobeanstalk.NewConn(nc).Stats()
	if err != nil {
		return "", err
	}
	return strings.Trim(stats["pid"], `"`), nil
}

// lockedBuffer collects what the process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
