package apnsconn

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// bubble runs f with a connection to a peer that does what f makes it do, frame
// by frame, and nothing else. Time is synctest's and the network a pipe
// in memory: settle waits until all that can happen has happened, and nothing
// depends on the machine's speed.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, c *Conn, p *peer)) {
	t.Helper()
	bubbleWith(t, cfg, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1000}}, f)
}

func bubbleWith(t *testing.T, cfg Config, first []http2.Setting, f func(t *testing.T, c *Conn, p *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, nc := newPeer(t)
		p.send(func(fr *http2.Framer) { fr.WriteSettings(first...) })
		c, err := newConn(t.Context(), cfg.withDefaults(), "api.push.apple.com", nc, nc)
		if err != nil {
			t.Fatal(err)
		}
		p.settle()
		f(t, c, p)
		c.Close()
		p.nc.Close()
	})
}

// peer is the other end of the connection under test.
type peer struct {
	t   *testing.T
	nc  net.Conn
	out chan []byte

	mu       sync.Mutex
	streams  map[uint32]*seenStream
	order    []uint32
	resets   map[uint32]http2.ErrCode
	acks     int // of SETTINGS
	pongs    int
	pings    int
	updates  int64 // sum of the connection's WINDOW_UPDATEs
	goAway   *http2.ErrCode
	err      error // the end of reading
	block    bytes.Buffer
	writeErr error
}

type seenStream struct {
	fields []hpack.HeaderField
	frames []http2.FrameHeader
	body   []byte
	ended  bool
}

func newPeer(t *testing.T) (*peer, net.Conn) {
	here, there := net.Pipe()
	p := &peer{
		t: t, nc: here, out: make(chan []byte, 10_000),
		streams: map[uint32]*seenStream{}, resets: map[uint32]http2.ErrCode{},
	}
	go p.read()
	go p.write()
	t.Cleanup(func() { here.Close(); close(p.out) })
	return p, there
}

func (p *peer) write() {
	for b := range p.out {
		if _, err := p.nc.Write(b); err != nil {
			p.mu.Lock()
			p.writeErr = err
			p.mu.Unlock()
		}
	}
}

func (p *peer) read() {
	if _, err := io.ReadFull(p.nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(nil, p.nc)
	dec := hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		p.mu.Lock()
		if err != nil {
			p.err = err
			p.mu.Unlock()
			return
		}
		p.frame(f, dec)
		p.mu.Unlock()
	}
}

func (p *peer) frame(f http2.Frame, dec *hpack.Decoder) {
	stream := p.streams[f.Header().StreamID]
	switch f := f.(type) {
	case *http2.HeadersFrame:
		if stream != nil {
			p.t.Errorf("second HEADERS on stream %d", f.StreamID)
		}
		if n := len(p.order); n > 0 && p.order[n-1] >= f.StreamID {
			p.t.Errorf("stream %d opened after %d", f.StreamID, p.order[n-1])
		}
		stream = &seenStream{ended: f.StreamEnded()}
		p.streams[f.StreamID] = stream
		p.order = append(p.order, f.StreamID)
		p.block.Reset()
		p.block.Write(f.HeaderBlockFragment())
		if f.HeadersEnded() {
			p.fields(stream, dec)
		}
	case *http2.ContinuationFrame:
		p.block.Write(f.HeaderBlockFragment())
		if f.HeadersEnded() {
			p.fields(stream, dec)
		}
	case *http2.DataFrame:
		stream.body = append(stream.body, f.Data()...)
		stream.ended = f.StreamEnded()
	case *http2.RSTStreamFrame:
		p.resets[f.StreamID] = f.ErrCode
	case *http2.SettingsFrame:
		if f.IsAck() {
			p.acks++
		}
	case *http2.PingFrame:
		if f.IsAck() {
			p.pongs++
		} else {
			p.pings++
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			p.updates += int64(f.Increment)
		}
	case *http2.GoAwayFrame:
		p.goAway = &f.ErrCode
	}
	if stream != nil {
		stream.frames = append(stream.frames, f.Header())
	}
}

func (p *peer) fields(s *seenStream, dec *hpack.Decoder) {
	fields, err := dec.DecodeFull(p.block.Bytes())
	if err != nil {
		p.t.Errorf("header block: %v", err)
	}
	s.fields = fields
}

// send queues the frames that f writes.
func (p *peer) send(f func(*http2.Framer)) {
	var b frameBuffer
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	f(fr)
	p.out <- b.b
}

// settle waits until both ends have done all they can do.
func (p *peer) settle() { synctest.Wait() }

func (p *peer) do(f func(*http2.Framer)) {
	p.send(f)
	p.settle()
}

// answer ends streams with an answer without body.
func (p *peer) answer(status string, streams ...uint32) {
	p.do(func(fr *http2.Framer) {
		for _, id := range streams {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", status), EndHeaders: true, EndStream: true})
		}
	})
}

// block encodes names and values without reference to a dynamic table.
func block(fields ...string) []byte {
	var b frameBuffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return b.b
}

// seen returns what has arrived on stream id.
func (p *peer) seen(id uint32) seenStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.streams[id]; s != nil {
		return *s
	}
	return seenStream{}
}

// opened is the number of streams seen.
func (p *peer) opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.streams)
}

func (p *peer) wantResets(want map[uint32]http2.ErrCode) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(p.resets, want) {
		p.t.Errorf("resets %v, want %v", p.resets, want)
	}
}

func (p *peer) wantGoAway(code http2.ErrCode) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.goAway == nil {
		p.t.Errorf("no GOAWAY, want %v; read ended by %v", code, p.err)
	} else if *p.goAway != code {
		p.t.Errorf("GOAWAY %v, want %v", *p.goAway, code)
	}
}

// outcomes collects the callbacks of numbered pushes.
type outcomes struct {
	t  *testing.T
	mu sync.Mutex
	m  map[int]Outcome
}

func newOutcomes(t *testing.T) *outcomes { return &outcomes{t: t, m: map[int]Outcome{}} }

// done is the callback of push i.
func (o *outcomes) done(i int) func(Outcome) {
	return func(out Outcome) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if prev, ok := o.m[i]; ok {
			o.t.Errorf("push %d ended twice: %+v, %+v", i, prev, out)
		}
		o.m[i] = out
	}
}

// get returns push i's outcome, the zero one while there is none.
func (o *outcomes) get(i int) Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.m[i]
}

// counts says how many pushes ended in each class.
func (o *outcomes) counts() map[Class]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := map[Class]int{}
	for _, out := range o.m {
		m[out.Class]++
	}
	return m
}

func (o *outcomes) want(want map[Class]int) {
	o.t.Helper()
	if got := o.counts(); !maps.Equal(got, want) {
		o.t.Errorf("outcomes %v, want %v", got, want)
	}
}

// send sends count pushes, numbered from first.
func (o *outcomes) send(c *Conn, first, count int) {
	for i := first; i < first+count; i++ {
		c.Send(testPush(), o.done(i))
	}
}

// open sends one push and answers it, so that the connection is no longer held
// to one push at a time. It takes stream 1.
func (p *peer) open(c *Conn) {
	p.t.Helper()
	o := newOutcomes(p.t)
	o.send(c, 0, 1)
	p.settle()
	p.answer("200", 1)
	o.want(map[Class]int{Delivered: 1})
}

const testToken = "740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad"

func testPush() *Notification {
	return &Notification{
		Token:    testToken,
		Topic:    "com.example.app",
		PushType: "alert",
		Payload:  []byte(`{"aps":{"alert":"hello"}}`),
	}
}

// within bounds what should take no time at all, so that a hang fails with a
// message.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// stalledConn is a network that has stopped taking anything.
type stalledConn struct{ net.Conn }

func (c stalledConn) Write(p []byte) (int, error) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	here.SetWriteDeadline(time.Now().Add(10 * time.Second))
	return here.Write(p)
}
