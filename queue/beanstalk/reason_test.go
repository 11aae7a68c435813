package beanstalk

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// deaf is a port that takes no more connections and refuses none.
func deaf(t *testing.T) (addr string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}).String()
	for range 10 { // until its queue of connections is full
		nc, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { nc.Close() })
	}
	t.Fatal("it takes connections")
	return ""
}

// early is a context that has not noticed yet that its time is over.
type early struct {
	context.Context
	end time.Time
}

func (e early) Deadline() (time.Time, bool) { return e.end, true }

// A dial that is cut off by the caller's context says so.
func TestDialCutOff(t *testing.T) {
	t.Parallel()
	addr := deaf(t)
	ctx := early{context.Background(), time.Now().Add(20 * time.Millisecond)}
	if nc, err := dialTCP(ctx, addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, %v", nc, err)
	}
}

// The reason why a server is away is the same as long as that is.
func TestReasonStays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		serve func(nc *net.TCPConn)
		want  string
	}{
		"silent": {func(*net.TCPConn) {}, "watch: i/o timeout"},
		"resets": {func(nc *net.TCPConn) { _ = nc.SetLinger(0); nc.Close() }, "connection reset by peer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					t.Cleanup(func() { nc.Close() })
					tt.serve(nc.(*net.TCPConn))
				}
			}()
			addr := l.Addr().String()
			q := openTest(t, Options{Addrs: []string{addr}, Timeout: 100 * time.Millisecond})
			c := consumeTest(t, q, "tube")
			why := func() string {
				if err := c.Err(); err != nil {
					return err.Error()
				}
				return ""
			}
			// Where the reset comes first is a matter of luck.
			eventually(t, "it says why", func() bool {
				switch why() {
				case "beanstalk: server " + addr + ": " + tt.want, "beanstalk: server " + addr + ": watch: " + tt.want:
					return true
				}
				return false
			})
		})
	}
}
