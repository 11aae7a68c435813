package apnsconn

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzPeer lets the peer send anything while pushes are open. Whatever it is,
// each push must end once, and the connection without a panic or a leak.
func FuzzPeer(f *testing.F) {
	add := func(write func(fr *http2.Framer)) {
		var b frameBuffer
		fr := http2.NewFramer(&b, nil)
		fr.AllowIllegalWrites = true
		write(fr)
		f.Add(b.b)
	}
	headers := func(fr *http2.Framer, id uint32, end bool, fields ...string) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
	}
	add(func(fr *http2.Framer) {
		headers(fr, 1, true, ":status", "200", "apns-id", "X")
		headers(fr, 3, false, ":status", "410")
		fr.WriteDataPadded(3, true, []byte(`{"reason":"Unregistered","timestamp":1700000000000}`), make([]byte, 3))
	})
	add(func(fr *http2.Framer) {
		b := block(":status", "103", "link", "x")
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3]})
		fr.WriteContinuation(1, false, b[3:5])
		fr.WriteContinuation(1, true, b[5:])
		headers(fr, 1, false, ":status", "200")
		headers(fr, 1, true, "trailer", "x")
		fr.WriteRSTStream(3, http2.ErrCodeRefusedStream)
		fr.WriteRSTStream(5, http2.ErrCodeNo)
	})
	add(func(fr *http2.Framer) {
		fr.WriteGoAway(3, http2.ErrCodeNo, []byte(`{"reason":"Shutdown"}`))
		fr.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("text"))
		fr.WritePing(false, [8]byte{1, 2})
		fr.WritePing(true, [8]byte{})
	})
	add(func(fr *http2.Framer) {
		fr.WriteSettings(
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7},
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0},
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: 10},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15},
		)
		fr.WriteSettingsAck()
		fr.WriteWindowUpdate(0, 1)
		fr.WriteWindowUpdate(5, maxWindow)
		fr.WriteWindowUpdate(3, 0)
		fr.WriteRawFrame(0x42, 0xff, 3, []byte("unknown"))
		fr.WritePriority(1, http2.PriorityParam{StreamDep: 1})
		fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2})
	})
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) { fuzzPeer(t, data) })
	})
}

func fuzzPeer(t *testing.T, data []byte) {
	nc := newScriptedConn(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 20})
	})
	c, err := newConn(t.Context(), Config{}.withDefaults(), "api.push.apple.com", nc, nc)
	if err != nil {
		t.Fatal(err)
	}
	const pushes = 4
	o := newOutcomes(t)
	o.send(c, 0, pushes)
	synctest.Wait()
	nc.say(data)
	synctest.Wait()
	o.send(c, pushes, pushes) // under the rules that data has made
	synctest.Wait()
	c.mu.Lock()
	switch active := len(c.streams); {
	case c.all.n < active || c.waiting.n+active != c.all.n:
		t.Errorf("%d pushes, %d of them waiting, %d streams", c.all.n, c.waiting.n, active)
	case len(c.fin) != 0:
		t.Error("callbacks forgotten")
	}
	c.mu.Unlock()
	nc.hangUp()
	<-c.Done()
	n := 0
	for _, count := range o.counts() {
		n += count
	}
	if n != 2*pushes {
		t.Errorf("%d of %d pushes ended", n, 2*pushes)
	}
}

// FuzzHeaderBlock lets the peer answer with any header block. Whether it is valid
// HPACK is for x/net's decoder to say, in one go; the connection, which decodes
// it by frames and with limits, must not see more in it, and must stay in step.
func FuzzHeaderBlock(f *testing.F) {
	f.Add(block(":status", "200", "apns-id", "X", "content-length", "0"), uint16(5))
	f.Add(block(":status", "410", "Upper", "x"), uint16(1))
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x20, 0x88, 0x40, 0x01, 'a', 0x01, 'b', 0xbe}, uint16(0)) // table sizes, then its new entry
	f.Add(append(block(":status", "200"), bytes.Repeat([]byte{0xbe}, 100)...), uint16(30))
	f.Fuzz(func(t *testing.T, data []byte, split uint16) {
		synctest.Test(t, func(t *testing.T) { fuzzHeaderBlock(t, data, int(split)) })
	})
}

func fuzzHeaderBlock(t *testing.T, data []byte, split int) {
	nc := newScriptedConn(func(fr *http2.Framer) { fr.WriteSettings() })
	c, err := newConn(t.Context(), Config{}.withDefaults(), "api.push.apple.com", nc, nc)
	if err != nil {
		t.Fatal(err)
	}
	o := newOutcomes(t)
	o.send(c, 0, 2)
	synctest.Wait()
	var b frameBuffer
	fr := http2.NewFramer(&b, nil)
	data = data[:min(len(data), 2*maxReadFrame)]
	first := data[:min(split, len(data), maxReadFrame)]
	rest := data[len(first):]
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(rest) == 0, EndStream: true})
	for len(rest) > 0 {
		part := rest[:min(len(rest), maxReadFrame)]
		rest = rest[len(part):]
		fr.WriteContinuation(1, len(rest) == 0, part)
	}
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block(":status", "200"), EndHeaders: true, EndStream: true})
	nc.say(b.b)
	synctest.Wait()

	fields, err := hpack.NewDecoder(maxTableSize, nil).DecodeFull(data)
	var statuses []string
	for _, f := range fields {
		if f.Name == ":status" {
			statuses = append(statuses, f.Value)
		}
	}
	got := o.get(0)
	switch {
	case err != nil && c.Usable():
		t.Errorf("header block with %v, and the connection goes on", err)
	case got.Status != 0 && (err != nil || len(statuses) != 1 || statuses[0] != strconv.Itoa(got.Status)):
		t.Errorf("outcome %+v of statuses %q, %v", got, statuses, err)
	case c.Usable() && o.get(1).Class != Delivered:
		t.Errorf("next answer: %+v", o.get(1))
	}
	nc.hangUp()
	<-c.Done()
	if n := len(o.counts()); n == 0 || o.get(1).Class == 0 {
		t.Errorf("outcomes %v", o.counts())
	}
}

// scriptedConn is a network whose other end says what it is told to and takes
// everything.
type scriptedConn struct {
	mu     sync.Mutex
	more   *sync.Cond
	in     []byte
	closed bool
}

func newScriptedConn(first func(*http2.Framer)) *scriptedConn {
	c := &scriptedConn{}
	c.more = sync.NewCond(&c.mu)
	var b frameBuffer
	first(http2.NewFramer(&b, nil))
	c.in = b.b
	return c
}

func (c *scriptedConn) say(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in = append(c.in, p...)
	c.more.Broadcast()
}

func (c *scriptedConn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.more.Broadcast()
}

func (c *scriptedConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 && !c.closed {
		c.more.Wait()
	}
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *scriptedConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *scriptedConn) Close() error                     { c.hangUp(); return nil }
func (c *scriptedConn) LocalAddr() net.Addr              { return nil }
func (c *scriptedConn) RemoteAddr() net.Addr             { return nil }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }
