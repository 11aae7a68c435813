package beanstalk

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
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
	untold, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx := early{untold, time.Now().Add(20 * time.Millisecond)}
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
			q := openTest(t, Options{Addrs: []string{addr}, timeout: 100 * time.Millisecond})
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

// A port where somebody else answers: no job is there that could come twice.
func TestNoBeanstalkd(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	other, err := nats.NewServer(&nats.Options{Host: "127.0.0.1", Port: nats.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		other.Shutdown()
		other.WaitForShutdown()
	})
	other.Start()
	if !other.ReadyForConnections(patience) {
		t.Fatal("no NATS server")
	}
	for name, tt := range map[string]struct{ addr, want string }{
		"nats": {other.Addr().String(), "a NATS server answers there, not beanstalkd: check host, port and scheme of the queue's url"},
		"web":  {web.Listener.Addr().String(), "an HTTP server answers there, not beanstalkd: check host, port and scheme of the queue's url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := openTest(t, Options{Addrs: []string{tt.addr}})
			c := consumeTest(t, q, "tube")
			want := "server " + tt.addr + ": " + tt.want
			eventually(t, "it says who is there", func() bool {
				err := c.Err()
				return err != nil && err.Error() == "beanstalk: "+want
			})
			_, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{})
			if err == nil || err.Error() != `beanstalk: put in "tube": `+want || errors.Is(err, queue.ErrUncertain) {
				t.Errorf("put: %v", err)
			}
			if _, err := q.TubeStats(ctxOf(t), "tube"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("statistics: %v", err)
			}
		})
	}
}

// The numbers of one of two servers are theirs, and the error says whose are missing.
func TestStatsOfSomeServers(t *testing.T) {
	t.Parallel()
	a, b := beanstalktest.Start(t), beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{a.Addr(), b.Addr()}})
	for range 50 { // on both
		mustPut(t, q, "tube", "x")
	}
	b.Kill()
	st, err := q.TubeStats(ctxOf(t), "tube")
	if err == nil { // the dead connection was not noticed yet
		st, err = q.TubeStats(ctxOf(t), "tube")
	}
	want := "beanstalk: 1 of 2 servers answer: server " + b.Addr() + ": connection refused"
	if !errors.Is(err, queue.ErrPartial) || err.Error() != want || st.Ready == 0 || st.Ready == 50 {
		t.Errorf("%+v, %v", st, err)
	}
	a.Kill()
	if _, err = q.TubeStats(ctxOf(t), "tube"); errors.Is(err, queue.ErrPartial) || !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("none is there: %v", err)
	}
}

// Why a put failed on each of several servers is told on one line, and by whom once.
func TestPutReasons(t *testing.T) {
	t.Parallel()
	var addrs []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr().String())
		l.Close()
	}
	q := openTest(t, Options{Addrs: addrs})
	_, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{})
	told := func(a, b string) string {
		return `beanstalk: put in "tube": server ` + a + ": connection refused; server " + b + ": connection refused"
	}
	if !errors.Is(err, queue.ErrUnavailable) || err.Error() != told(addrs[0], addrs[1]) && err.Error() != told(addrs[1], addrs[0]) {
		t.Errorf("%v", err)
	}
}
