package apnstest_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// TestConnectionErrors: what a client may not do ends the connection with
// GOAWAY and the right code, and is listed.
func TestConnectionErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(*client)
		code http2.ErrCode
	}{
		{"even stream", func(c *client) { c.headers(2, true, pushFields()...) }, http2.ErrCodeProtocol},
		{"DATA on an idle stream", func(c *client) { c.fr.WriteData(5, true, []byte("x")) }, http2.ErrCodeProtocol},
		{"RST_STREAM on an idle stream", func(c *client) { c.fr.WriteRSTStream(5, http2.ErrCodeCancel) }, http2.ErrCodeProtocol},
		{"WINDOW_UPDATE on an idle stream", func(c *client) { c.fr.WriteWindowUpdate(5, 1) }, http2.ErrCodeProtocol},
		{"WINDOW_UPDATE of 0", func(c *client) { c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, http2.ErrCodeProtocol},
		{"window above the largest", func(c *client) { c.fr.WriteWindowUpdate(0, 1<<31-1) }, http2.ErrCodeFlowControl},
		{"PUSH_PROMISE", func(c *client) {
			c.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, http2.ErrCodeProtocol},
		{"DATA beyond the connection's window", func(c *client) {
			for id := uint32(1); id <= 9; id += 2 {
				c.headers(id, false, pushFields()...)
				c.fr.WriteData(id, false, make([]byte, 16384))
			}
		}, http2.ErrCodeFlowControl},
		{"frame too large", func(c *client) { c.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 16385)) }, http2.ErrCodeFrameSize},
		{"HPACK", func(c *client) {
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0x7f}, EndHeaders: true})
		}, http2.ErrCodeCompression},
		{"HPACK cut off", func(c *client) {
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x40, 0x05, 'a'}, EndHeaders: true})
		}, http2.ErrCodeCompression},
		{"another frame inside a header block", func(c *client) {
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			c.fr.WritePing(false, [8]byte{})
		}, http2.ErrCodeProtocol},
		{"header block without end", func(c *client) {
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			for range 40 {
				c.fr.WriteContinuation(1, false, []byte{0x82})
			}
		}, http2.ErrCodeEnhanceYourCalm},
		{"padding longer than HEADERS", func(c *client) {
			c.fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, []byte{200, 0x82})
		}, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{WithholdWindowUpdates: true, Script: apnstest.Always(apnstest.Answer{Silence: true})})
			c, _ := dial(t, srv)
			tt.do(c)
			if ev := c.until(http2.FrameGoAway); ev.code != tt.code {
				t.Errorf("GOAWAY %v %q, want %v", ev.code, ev.data, tt.code)
			}
			if _, err := c.rest(); err != io.EOF {
				t.Errorf("after GOAWAY: %v, want an orderly end", err)
			}
			if v := srv.Violations(); len(v) != 1 {
				t.Errorf("violations %q, want one", v)
			}
		})
	}
}

// TestStreamErrors: faults of one stream leave the others alone.
func TestStreamErrors(t *testing.T) {
	t.Parallel()
	fields := func(with ...string) func(*client) {
		return func(c *client) { c.headers(1, true, pushFields(with...)...) }
	}
	extra := func(name, value string) func(*client) {
		return func(c *client) { c.headers(1, true, append(pushFields(), name, value)...) }
	}
	tests := []struct {
		name string
		do   func(*client)
		code http2.ErrCode
	}{
		{"no path", fields(":path", ""), http2.ErrCodeProtocol},
		{"no method", fields(":method", ""), http2.ErrCodeProtocol},
		{"pseudo header last", func(c *client) {
			c.headers(1, true, append(pushFields(":path", ""), ":path", "/3/device/"+token)...)
		}, http2.ErrCodeProtocol},
		{"pseudo header twice", func(c *client) {
			c.headers(1, true, append([]string{":method", "POST"}, pushFields()...)...)
		}, http2.ErrCodeProtocol},
		{"unknown pseudo header", extra(":odd", "x"), http2.ErrCodeProtocol},
		{"upper-case name", extra("Apns-Id", "x"), http2.ErrCodeProtocol},
		{"line break", extra("x", "a\r\nb"), http2.ErrCodeProtocol},
		{"connection", extra("connection", "close"), http2.ErrCodeProtocol},
		{"te", extra("te", "gzip"), http2.ErrCodeProtocol},
		{"content-length text", extra("content-length", "many"), http2.ErrCodeProtocol},
		{"content-length wrong", func(c *client) {
			c.headers(1, false, append(pushFields(), "content-length", "3")...)
			c.fr.WriteData(1, true, []byte("{}"))
		}, http2.ErrCodeProtocol},
		{"HEADERS again", func(c *client) {
			c.headers(1, false, pushFields()...)
			c.headers(1, false, pushFields()...)
		}, http2.ErrCodeProtocol},
		{"DATA after END_STREAM", func(c *client) {
			c.headers(1, false, pushFields("apns-collapse-id", "silent")...)
			c.fr.WriteData(1, true, []byte("{}"))
			c.fr.WriteData(1, true, []byte("{}"))
		}, http2.ErrCodeStreamClosed},
		{"HEADERS after END_STREAM", func(c *client) {
			c.headers(1, false, pushFields("apns-collapse-id", "silent")...)
			c.fr.WriteData(1, true, []byte("{}"))
			c.headers(1, true, pushFields()...)
		}, http2.ErrCodeStreamClosed},
		{"stream window above the largest", func(c *client) {
			c.headers(1, false, pushFields()...)
			c.fr.WriteWindowUpdate(1, 1<<31-1)
		}, http2.ErrCodeFlowControl},
		{"stream window update of 0", func(c *client) {
			c.headers(1, false, pushFields()...)
			c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4))
		}, http2.ErrCodeProtocol},
		{"DATA beyond the stream's window", func(c *client) {
			c.headers(1, false, pushFields()...)
			c.fr.WriteData(1, false, make([]byte, 1001))
		}, http2.ErrCodeFlowControl},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{
				Settings: apnstest.Settings{InitialWindowSize: new(uint32(1000))},
				Script: func(r *apnstest.Request) apnstest.Answer {
					return apnstest.Answer{Silence: r.Header.Get("apns-collapse-id") != ""}
				},
			})
			c, _ := dial(t, srv)
			tt.do(c)
			if ev := c.until(http2.FrameRSTStream); ev.stream != 1 || ev.code != tt.code {
				t.Errorf("RST_STREAM %d %v, want 1 %v", ev.stream, ev.code, tt.code)
			}
			if v := srv.Violations(); len(v) != 1 {
				t.Errorf("violations %q, want one", v)
			}
			c.push(3)
			if got := c.response(3); got.status != "200" {
				t.Errorf("the next stream: %s %s", got.status, got.body)
			}
		})
	}
}

func TestBeginnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(*client)
	}{
		{"not HTTP/2", func(c *client) { io.WriteString(c.conn, "POST /3/device/00 HTTP/1.1\r\n\r\n") }},
		{"no SETTINGS", func(c *client) {
			io.WriteString(c.conn, http2.ClientPreface)
			c.fr.WritePing(false, [8]byte{})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{})
			c, err := dialRaw(t, srv)
			if err != nil {
				t.Fatal(err)
			}
			tt.do(c)
			if ev := c.until(http2.FrameGoAway); ev.code != http2.ErrCodeProtocol {
				t.Errorf("GOAWAY %v", ev.code)
			}
		})
	}
}

// TestOddButLegal: frames a server must put up with.
func TestOddButLegal(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	block := bytes.Clone(c.encode(pushFields("apns-collapse-id", strings.Repeat("c", 60))...))
	c.fr.WriteRawFrame(0xbe, 0xff, 0, []byte("unknown type"))
	c.fr.WritePriority(1, http2.PriorityParam{Weight: 3})
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1], PadLength: 9, Priority: http2.PriorityParam{Weight: 7}})
	c.fr.WriteContinuation(1, false, nil)
	c.fr.WriteContinuation(1, true, block[1:])
	c.fr.WriteDataPadded(1, false, []byte(`{"aps":`), make([]byte, 50))
	c.fr.WriteData(1, false, nil)
	c.fr.WriteData(1, false, []byte(`{}}`))
	c.headers(1, true, "x-trailer", "1")
	if got := c.response(1); got.status != "200" {
		t.Errorf("answer %s %s", got.status, got.body)
	}
	if r := srv.Requests()[0]; string(r.Body) != `{"aps":{}}` || r.Header.Get("apns-topic") != topic {
		t.Errorf("recorded %q, fields %v", r.Body, r.Header)
	}
	c.fr.WritePing(false, [8]byte{1, 2, 3})
	if ev := c.until(http2.FramePing); !ev.ack || ev.data[2] != 3 {
		t.Errorf("answer to PING: %+v", ev)
	}
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// TestHeaderListTooLong: the client's HPACK state survives.
func TestHeaderListTooLong(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	c.push(1, "x-long", strings.Repeat("long ", 2000))
	if got := c.response(1); got.status != "431" {
		t.Errorf("answer %s, want 431", got.status)
	}
	c.push(3)
	if got := c.response(3); got.status != "200" {
		t.Errorf("the next stream: %s %s", got.status, got.body)
	}
}

// TestTableSize: after HEADER_TABLE_SIZE went down and was acknowledged, the
// next header block must say so.
func TestTableSize(t *testing.T) {
	t.Parallel()
	for _, obey := range []bool{true, false} {
		srv := newServer(t, apnstest.Options{})
		c, _ := dial(t, srv)
		c.push(1)
		c.response(1)
		onlyConn(t, srv).Settings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 100})
		c.until(http2.FrameSettings)
		c.fr.WriteSettingsAck()
		if obey {
			c.enc.SetMaxDynamicTableSizeLimit(100)
			c.push(3)
			if got := c.response(3); got.status != "200" {
				t.Errorf("answer %s %s", got.status, got.body)
			}
			continue
		}
		c.push(3)
		if ev := c.until(http2.FrameGoAway); ev.code != http2.ErrCodeCompression {
			t.Errorf("GOAWAY %v, want COMPRESSION_ERROR", ev.code)
		}
	}
}

// TestCancelledStreams: a stream that the client resets is forgotten, whether
// its answer is pending or its body has not come yet.
func TestCancelledStreams(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{
		Settings: apnstest.Settings{MaxConcurrentStreams: new(uint32(2))},
		Script: func(r *apnstest.Request) apnstest.Answer {
			return apnstest.Answer{Silence: r.Stream < 201}
		},
	})
	c, _ := dial(t, srv)
	for id := uint32(1); id < 200; id += 4 {
		c.push(id)
		c.headers(id+2, false, pushFields()...)
		c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		c.fr.WriteRSTStream(id+2, http2.ErrCodeCancel)
		c.fr.WriteData(id+2, true, []byte("late"))
	}
	c.push(201)
	if got := c.response(201); got.status != "200" {
		t.Errorf("answer %s", got.status)
	}
	st := srv.Stats()
	if st.Cancelled != 100 || st.Refused != 0 || onlyConn(t, srv).OpenStreams() != 0 {
		t.Errorf("cancelled %d, refused %d, open %d; want 100, 0, 0", st.Cancelled, st.Refused, onlyConn(t, srv).OpenStreams())
	}
}

// FuzzFrames feeds the server's reader anything; it must end or go on, and
// Close must return.
func FuzzFrames(f *testing.F) {
	seed := func(write func(*http2.Framer)) {
		var b bytes.Buffer
		fr := http2.NewFramer(&b, nil)
		fr.AllowIllegalWrites = true
		fr.WriteSettings()
		write(fr)
		f.Add(b.Bytes())
	}
	seed(func(fr *http2.Framer) { fr.WriteData(1, true, []byte("x")) })
	seed(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x83, 0x87, 0x84}, EndHeaders: true})
		fr.WriteData(1, true, []byte("{}"))
		fr.WriteRSTStream(1, 0)
	})
	seed(func(fr *http2.Framer) {
		fr.WriteWindowUpdate(0, 1<<31-1)
		fr.WriteSettingsAck()
		fr.WriteGoAway(0, 0, nil)
	})
	seed(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x3f}, EndHeaders: false})
		fr.WriteContinuation(1, true, []byte{0xe1, 0x1f, 0x82})
	})
	f.Add(binary.BigEndian.AppendUint64(nil, 1<<63))
	srv := newServer(f, apnstest.Options{Record: 10, AllowAnonymous: true})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := dialRaw(t, srv)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c.conn, http2.ClientPreface)
		c.conn.Write(data)
		c.conn.CloseWrite()
		c.rest()
		c.conn.Close()
	})
}
