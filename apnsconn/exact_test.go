package apnsconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// What a write that fails has handed to the network, and what not, is told
// apart to the byte: a push is not sent unless all of it was.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		taken   func(batch []byte) int // how much of it the network takes
		unknown int                    // pushes of 3
	}{
		{func([]byte) int { return 0 }, 0},
		{func([]byte) int { return 1 }, 0},
		{func(b []byte) int { return streamEnd(b, 3) - 1 }, 0},
		{func(b []byte) int { return streamEnd(b, 3) }, 1},
		{func(b []byte) int { return streamEnd(b, 3) + 1 }, 1},
		{func(b []byte) int { return streamEnd(b, 5) }, 2},
		{func(b []byte) int { return len(b) - 1 }, 2},
		{func(b []byte) int { return len(b) }, 3},
	} {
		bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
			p.open(c)
			c.nc = breakingConn{c.nc, tt.taken} // nothing is being written
			o := newOutcomes(t)
			c.mu.Lock() // until all three wait, so that they make one batch
			go o.send(c, 0, 3)
			c.corked = true
			c.mu.Unlock()
			p.settle()
			c.mu.Lock()
			c.corked = false
			c.wakeWriter()
			c.mu.Unlock()
			<-c.Done()
			want := map[Class]int{Unknown: tt.unknown, NotSent: 3 - tt.unknown}
			for class, n := range want {
				if o.counts()[class] != n {
					t.Errorf("outcomes %v, want %v", o.counts(), want)
				}
			}
			for i := range 3 {
				if err := o.get(i).Err; err == nil || !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("push %d: Err %v", i, err)
				}
			}
		})
	}
}

// breakingConn takes a part of the next write, and fails.
type breakingConn struct {
	net.Conn
	taken func([]byte) int
}

func (c breakingConn) Write(p []byte) (int, error) {
	n, _ := c.Conn.Write(p[:c.taken(p)])
	c.Conn.Close()
	return n, io.ErrClosedPipe
}

// streamEnd is where stream ends in a batch.
func streamEnd(batch []byte, stream uint32) int {
	for n := range batch {
		if !slices.Contains(slices.Collect(unsent(batch, n)), stream) {
			return n
		}
	}
	panic(fmt.Sprintf("no stream %d", stream))
}

func TestUnsent(t *testing.T) {
	t.Parallel()
	var b frameBuffer
	fr := http2.NewFramer(&b, nil)
	fr.WritePing(true, [8]byte{1}) // 17 bytes
	fr.WriteData(1, true, []byte("rest of a push of an earlier batch"))
	ends := map[uint32]int{1: len(b.b)}
	for id := uint32(3); id < 9; id += 2 {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{1, 2, 3}, EndStream: id == 5})
		fr.WriteContinuation(id, true, []byte{4})
		if id != 5 {
			fr.WriteData(id, true, []byte{0, 0, 0, 1, 0, 0, 0, 0, 9})
		}
		ends[id] = len(b.b)
		fr.WriteRSTStream(11, 0) // of a push that has ended
	}
	for n := range len(b.b) + 1 {
		got := map[uint32]bool{}
		for id := range unsent(b.b, n) {
			got[id] = true
		}
		for id, end := range ends {
			if got[id] != (n < end) || got[11] {
				t.Errorf("%d bytes written: %v", n, got)
			}
		}
	}
}

// A push whose end was never written, because the peer's windows are shut, is no request
// that the peer could process. Its stream is reset, and nothing of it follows.
func TestEndIsNotWritten(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		window uint32 // of each stream
		end    func(c *Conn, p *peer)
		want   map[Class]int
	}{
		{0, func(*Conn, *peer) { time.Sleep(time.Minute) }, map[Class]int{NotSent: 1}},
		{10, func(*Conn, *peer) { time.Sleep(time.Minute) }, map[Class]int{NotSent: 1}},
		{24, func(*Conn, *peer) { time.Sleep(time.Minute) }, map[Class]int{NotSent: 1}}, // a byte is missing
		{25, func(*Conn, *peer) { time.Sleep(time.Minute) }, map[Class]int{Unknown: 1}},
		{10, func(c *Conn, _ *peer) { c.Close() }, map[Class]int{NotSent: 1}},
		{10, func(_ *Conn, p *peer) { p.nc.Close() }, map[Class]int{NotSent: 1}},
		{10, func(_ *Conn, p *peer) {
			p.do(func(fr *http2.Framer) { fr.WriteRSTStream(1, http2.ErrCodeInternal) })
		}, map[Class]int{NotSent: 1}},
		{10, func(_ *Conn, p *peer) { p.answer("200", 1) }, map[Class]int{Delivered: 1}}, // it did not need the rest
		{10, func(c *Conn, p *peer) {
			p.do(settings(http2.SettingInitialWindowSize, 100))
			c.Close()
		}, map[Class]int{Unknown: 1}},
	} {
		first := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: tt.window}}
		bubbleWith(t, Config{}, first, func(t *testing.T, c *Conn, p *peer) {
			o := newOutcomes(t)
			n := testPush()
			n.Payload = make([]byte, 25)
			c.Send(n, o.done(0))
			p.settle()
			if s := p.seen(1); len(s.body) != int(tt.window) || s.ended != (tt.window == 25) {
				t.Fatalf("window %d: %d bytes before, ended %v", tt.window, len(s.body), s.ended)
			}
			tt.end(c, p)
			p.settle()
			o.want(tt.want)
			if tt.want[NotSent] == 1 {
				p.do(settings(http2.SettingInitialWindowSize, 100))
				if s := p.seen(1); s.ended || len(s.body) != int(tt.window) {
					t.Errorf("window %d: goes on after it was called not sent", tt.window)
				}
			}
		})
	}
}

// The same over TLS, where a record is the least that can arrive: the network
// breaks anywhere in the middle of a large write.
func TestFailedWriteOverTLS(t *testing.T) {
	t.Parallel()
	for _, bytes := range []int{0, 1, 16 << 10, 16<<10 + 50, 20_000, 33_000, 50_000} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			t.Parallel()
			testFailedWriteOverTLS(t, bytes)
		})
	}
}

func testFailedWriteOverTLS(t *testing.T, bytes int) {
	const pushes = 600
	s := startServer(t, apnstest.Options{AllowAnonymous: true})
	raw, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cut := &cuttingConn{Conn: raw}
	cut.left.Store(1 << 20)
	cfg := Config{Addr: s.Addr, RootCAs: s.CertPool(), InFlight: pushes}.withDefaults()
	tc := tls.Client(cut, tlsConfig(cfg, "127.0.0.1"))
	c, err := newConn(t.Context(), cfg, s.Addr, tc, cut)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if o := c.Push(within(t), testPush()); o.Class != Delivered {
		t.Fatal(o)
	}
	s.SetScript(apnstest.Always(apnstest.Answer{Silence: true}))
	s.ForgetRequests()
	cut.left.Store(int64(bytes))
	o := newOutcomes(t)
	for i := range pushes {
		n := testPush()
		n.Token = fmt.Sprintf("%064d", i)
		c.Send(n, o.done(i))
	}
	<-c.Done()
	if err := waitFor(within(t), func() bool { return s.Conns() == 0 }); err != nil {
		t.Fatal(err)
	}
	received := map[string]bool{}
	for _, token := range s.Tokens() {
		received[token] = true
	}
	unknown := 0
	for i := range pushes {
		switch got := o.get(i); {
		case got.Class == Unknown:
			unknown++
		case got.Class != NotSent:
			t.Errorf("push %d: %+v", i, got)
		case received[fmt.Sprintf("%064d", i)]:
			t.Errorf("push %d was received, and ended as not sent", i)
		}
	}
	if unknown != len(received) {
		t.Errorf("%d pushes unknown, %d received", unknown, len(received))
	}
}

// cuttingConn breaks once so many bytes have been written.
type cuttingConn struct {
	net.Conn
	left atomic.Int64
}

func (c *cuttingConn) Write(p []byte) (int, error) {
	left := c.left.Add(-int64(len(p)))
	if left >= 0 {
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:max(0, int64(len(p))+left)])
	return n, io.ErrClosedPipe
}
