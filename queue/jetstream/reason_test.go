package jetstream

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// saysJust waits until both a put and the consumer say this and nothing else.
func saysJust(t *testing.T, q *client, c *consumer, want string) {
	t.Helper()
	var put, idle error
	defer func() {
		if t.Failed() {
			t.Logf("last: a put: %v; the consumer: %v", put, idle)
		}
	}()
	eventually(t, "it says "+want, func() bool {
		_, put = q.Put(ctxOf(t), "x", nil, queue.PutOptions{})
		idle = c.Err()
		return put != nil && put.Error() == want && idle != nil && idle.Error() == want
	})
}

// Why a server is away is told with its address, once, and anew when that changes.
func TestReasonNamesTheServer(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	addr := ns.all[0].addr
	o := ns.options(t)
	log, lines := newLog()
	o.Log = log
	ns.down()
	q := openTest(t, o)
	c := consumeTest(t, q, "x")
	refused := "jetstream: server " + addr + ": connection refused"
	saysJust(t, q, c, refused)
	if err := ns.up(); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, q)
	ns.down()
	saysJust(t, q, c, refused)
	if text := lines.String(); !strings.Contains(text, "jetstream: server "+addr+": connection lost: EOF") {
		t.Errorf("the log does not say how the connection was lost:\n%s", text)
	}
	time.Sleep(2 * time.Second) // some more tries
	if n := strings.Count(lines.String(), "refused"); n != 2 {
		t.Errorf("%d times refused in the log:\n%s", n, lines)
	}
}

// A try that fails as the one before has no line, whatever port its text names.
func TestRetriesHaveOneLine(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var tries atomic.Int32
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			_, _ = fmt.Fprintf(nc, "%s-ERR 'Connection from %s Throttled'\r\n", goodInfo, nc.RemoteAddr())
			nc.Close()
		}
	}()
	log, lines := newLog()
	q := openTest(t, Options{URL: serversAt(l.Addr().String()), Log: log})
	says(t, q, "Throttled")
	eventually(t, "it is tried again", func() bool { return tries.Load() > 5 })
	if n := strings.Count(lines.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, lines)
	}
}

// Which of a name's addresses is tried last is chance, and no change.
func TestDialErrorStaysTheSame(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	said := map[string]bool{}
	for range 20 {
		_, err := dialAny(ctxOf(t), "tcp", []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, port)
		if err == nil {
			t.Skip("somebody else has taken the port")
		}
		said[err.Error()] = true
	}
	if len(said) != 1 {
		t.Errorf("says %v", said)
	}
}

// A port where somebody else answers.
func TestNoNATSServer(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, tt := range map[string]struct{ addr, want string }{
		"beanstalkd": {beanstalktest.Start(t).Addr(), "beanstalkd answers there, not a NATS server: check host, port and scheme of the queue's url"},
		"web":        {web.Listener.Addr().String(), "an HTTP server answers there, not a NATS server: check host, port and scheme of the queue's url"},
		"silence":    {silent.Addr().String(), "no greeting of a NATS server in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := openTest(t, Options{URL: serversAt(tt.addr)})
			saysJust(t, q, consumeTest(t, q, "x"), "jetstream: server "+tt.addr+": "+tt.want)
		})
	}
}
