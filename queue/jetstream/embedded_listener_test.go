package jetstream

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func openListening(t *testing.T) (q *client, addr, token string, lines *logLines) {
	t.Helper()
	log, lines := newLog()
	q = openReady(t, Options{URL: embeddedIn(t.TempDir(), "listen", "127.0.0.1:0"), Log: log})
	return q, readLine(filepath.Join(q.opts.Dir, listenFile)), readLine(filepath.Join(q.opts.Dir, tokenFile)), lines
}

// connectTest connects with the token, in short time.
func connectTest(t *testing.T, addr, token string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(addr, nats.Token(token), nats.Timeout(patience), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// While the server is restarted nobody else gets the port, where producers show the
// token.
func TestPortIsKept(t *testing.T) {
	t.Parallel()
	q, addr, token, _ := openListening(t)
	nc := connectTest(t, addr, token)
	was, _ := q.embedded.running()
	got := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			l, err := net.Listen("tcp", addr)
			if err == nil {
				l.Close()
				got <- fmt.Errorf("another program listens on %s", addr)
				return
			}
			select {
			case <-stop:
				got <- nil
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	}()
	q.embedded.failDisk("it is full")
	eventually(t, "another server runs", func() bool {
		is, _ := q.embedded.running()
		return is != nil && is != was
	})
	eventually(t, "a job is put from outside", func() bool {
		m, err := nc.Request(jobSubject("t"), []byte("x"), time.Second)
		return err == nil && strings.Contains(string(m.Data), `"seq"`)
	})
	close(stop)
	if err := <-got; err != nil {
		t.Error(err)
	}
	if is := readLine(filepath.Join(q.opts.Dir, listenFile)); is != addr {
		t.Errorf("it is at %q now, was at %s", is, addr)
	}
}

// Clients without the token who take what they get keep nobody out who has the token.
func TestUnauthenticatedLeaveRoom(t *testing.T) {
	t.Parallel()
	q, addr, token, _ := openListening(t)
	first := connectTest(t, addr, token)
	ended := make(chan struct{}, 1000)
	for range 4 * maxUnauthenticated {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		go func() {
			for r := bufio.NewReader(nc); ; {
				if _, err := r.ReadByte(); err != nil {
					ended <- struct{}{}
					return
				}
			}
		}()
	}
	for range 3 * maxUnauthenticated {
		<-ended
	}
	began := time.Now()
	if err := connectTest(t, addr, token).FlushTimeout(patience); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("who has the token gets in after %v", took)
	}
	if err := first.FlushTimeout(patience); err != nil || first.Reconnects > 0 {
		t.Errorf("who was in: %v, %d times again", err, first.Reconnects)
	}
	ln := q.embedded.door
	ln.mu.Lock()
	unauthenticated, authenticated := ln.unauthenticated.Len(), len(ln.authenticated)
	ln.mu.Unlock()
	if unauthenticated > maxUnauthenticated || authenticated != 2 {
		t.Errorf("%d unauthenticated, %d authenticated", unauthenticated, authenticated)
	}
	for range maxUnauthenticated { // the server sends them away
		<-ended
	}
}

// Of those who have the token there are so many at once and no more.
func TestTooManyAuthenticated(t *testing.T) {
	t.Parallel()
	q, addr, token, lines := openListening(t)
	q.embedded.door.mu.Lock()
	q.embedded.door.maxAuthenticated = 2
	q.embedded.door.mu.Unlock()
	first, second := connectTest(t, addr, token), connectTest(t, addr, token)
	for range 20 {
		if nc, err := nats.Connect(addr, nats.Token(token), nats.Timeout(patience)); err == nil {
			nc.Close()
			t.Fatal("a third one is in")
		}
	}
	if err := second.FlushTimeout(patience); err != nil {
		t.Error(err)
	}
	first.Close()
	eventually(t, "there is room", func() bool {
		nc, err := nats.Connect(addr, nats.Token(token), nats.Timeout(patience))
		if err != nil {
			return false
		}
		nc.Close()
		return true
	})
	if n := strings.Count(lines.String(), errTooManyConns.Error()); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// A large message goes through, both ways, and one that comes in pieces.
func TestRelay(t *testing.T) {
	t.Parallel()
	_, addr, token, _ := openListening(t)
	nc := connectTest(t, addr, token)
	sub, err := nc.SubscribeSync("mine")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(strings.Repeat("0123456789", 100_000))
	for range 20 {
		if err := nc.Publish("mine", body); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		m, err := sub.NextMsg(patience)
		if err != nil || string(m.Data) != string(body) {
			t.Fatalf("%v, %d bytes", err, len(m.Data))
		}
	}
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for b := range strings.SplitSeq(fmt.Sprintf("connect {\"auth_token\":%q,\"verbose\":false}\r\nPING\r\n", token), "") {
		if _, err := raw.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	_ = raw.SetDeadline(time.Now().Add(patience))
	for r := bufio.NewReader(raw); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "PONG\r\n" {
			return
		}
	}
}

func TestConnLimits(t *testing.T) {
	t.Parallel()
	for files, want := range map[uint64][2]int{0: {512, 64}, 1 << 40: {512, 64}, 1024: {192, 64}, 256: {48, 16}, 10: {12, 4}} {
		if m, s := connLimits(files); m != want[0] || s != want[1] {
			t.Errorf("%d files: %d authenticated, %d unauthenticated", files, m, s)
		}
	}
}
