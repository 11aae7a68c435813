package apnstest_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"propeller/apnsconn/apnstest"
)

// TestAnswers: every field of an Answer, on the wire.
func TestAnswers(t *testing.T) {
	t.Parallel()
	since := time.UnixMilli(1700000000123)
	tests := []struct {
		name   string
		answer apnstest.Answer
		status string
		body   string
		frames string // types, in order; E: END_STREAM, P: padded
	}{
		{"zero", apnstest.Answer{}, "200", "", "HEADERS.E"},
		{"status", apnstest.Answer{Status: 503}, "503", `{"reason":"ServiceUnavailable"}`, "HEADERS DATA.E"},
		{"reason", apnstest.Answer{Reason: "ExpiredToken"}, "410", `{"reason":"ExpiredToken"}`, "HEADERS DATA.E"},
		{"unknown reason", apnstest.Answer{Status: 418, Reason: "Teapot"}, "418", `{"reason":"Teapot"}`, "HEADERS DATA.E"},
		{"timestamp", apnstest.Answer{Status: 410, Timestamp: since}, "410", `{"reason":"Unregistered","timestamp":1700000000123}`, "HEADERS DATA.E"},
		{"410 without timestamp", apnstest.Answer{Status: 410}, "410", `{"reason":"Unregistered"}`, "HEADERS DATA.E"},
		{"no body", apnstest.Answer{Status: 400, NoBody: true}, "400", "", "HEADERS.E"},
		{"not JSON", apnstest.Answer{Status: 502, Body: []byte("<html>")}, "502", "<html>", "HEADERS DATA.E"},
		{"no usual reason", apnstest.Answer{Status: 502}, "502", "", "HEADERS.E"},
		{"200 with a body", apnstest.Answer{Body: []byte("{}")}, "200", "{}", "HEADERS DATA.E"},
		{"informational", apnstest.Answer{Informational: []int{100, 103}}, "200", "", "HEADERS HEADERS HEADERS.E"},
		{"trailers", apnstest.Answer{Status: 400, Trailer: map[string]string{"x-end": "1"}}, "400", `{"reason":"BadDeviceToken"}`, "HEADERS DATA HEADERS.E"},
		{"trailers alone", apnstest.Answer{Trailer: map[string]string{"x-end": "1"}}, "200", "", "HEADERS HEADERS.E"},
		{"padding", apnstest.Answer{Status: 400, Body: []byte("abc"), Pad: 9}, "400", "abc", "HEADERS.P DATA.EP"},
		{"split body", apnstest.Answer{Body: []byte("abcde"), SplitBody: 2}, "200", "abcde", "HEADERS DATA DATA DATA.E"},
		{"split headers", apnstest.Answer{Header: map[string]string{"x-a": "aaaaaaaaaaaaaaaaaaaa"}, SplitHeaders: 20}, "200", "", "HEADERS.E CONTINUATION CONTINUATION"},
	}
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.t = t
			srv.SetScript(apnstest.Always(tt.answer))
			id := uint32(2*i + 1)
			c.push(id)
			got := readAnswer(c, id)
			if got.status != tt.status || got.body != tt.body {
				t.Errorf("answer %s %q, want %s %q", got.status, got.body, tt.status, tt.body)
			}
			if f := frameNames(got.frames); f != tt.frames {
				t.Errorf("frames %s, want %s", f, tt.frames)
			}
		})
	}
}

// TestReasonsAndStatuses: the status Apple documents goes with each reason,
// and a usual reason with each status.
func TestReasonsAndStatuses(t *testing.T) {
	t.Parallel()
	statuses := map[int][]string{ // the first reason is the usual one
		400: {"BadDeviceToken", "BadCollapseId", "BadTopic", "DeviceTokenNotForTopic", "IdleTimeout", "TopicDisallowed", "MadeUp"},
		403: {"InvalidProviderToken", "BadCertificate", "ExpiredProviderToken", "Forbidden", "BadEnvironmentKeyInToken"},
		404: {"BadPath"},
		405: {"MethodNotAllowed"},
		410: {"Unregistered", "ExpiredToken"},
		413: {"PayloadTooLarge"},
		429: {"TooManyRequests", "TooManyProviderTokenUpdates"},
		500: {"InternalServerError"},
		503: {"ServiceUnavailable", "Shutdown"},
	}
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	id := uint32(1)
	check := func(a apnstest.Answer, status int, reason string) {
		t.Helper()
		srv.SetScript(apnstest.Always(a))
		c.push(id)
		got := c.response(id)
		if got.status != fmt.Sprint(status) || got.body != `{"reason":"`+reason+`"}` {
			t.Errorf("%d %q: answer %s %s, want %d %s", a.Status, a.Reason, got.status, got.body, status, reason)
		}
		id += 2
	}
	for status, reasons := range statuses {
		check(apnstest.Answer{Status: status}, status, reasons[0])
		for _, reason := range reasons {
			check(apnstest.Answer{Reason: reason}, status, reason)
		}
	}
}

// readAnswer is response for answers whose END_STREAM may come before
// CONTINUATION frames: it reads to the PING that it sends.
func readAnswer(c *client, id uint32) response {
	c.fr.WritePing(false, [8]byte{})
	var r response
	for ev := c.next(); ev.typ != http2.FramePing; ev = c.next() {
		if ev.stream != id {
			continue
		}
		r.frames = append(r.frames, ev)
		r.body += string(ev.data)
		if s := ev.fields.Get(":status"); s != "" {
			r.status, r.header = s, ev.fields
		}
	}
	return r
}

func frameNames(evs []event) string {
	var names []string
	for _, ev := range evs {
		name := ev.typ.String()
		if ev.end || ev.padded {
			name += "."
		}
		if ev.end {
			name += "E"
		}
		if ev.padded {
			name += "P"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// TestIDs: apns-id is echoed as it came, made up in upper case, or what the
// script says.
func TestIDs(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	const id = "123e4567-e89b-12d3-a456-4266554400a0"
	c.push(1, "apns-id", id)
	if got := c.response(1).header.Get("apns-id"); got != id {
		t.Errorf("apns-id %q, want %q", got, id)
	}
	c.push(3)
	made := c.response(3).header.Get("apns-id")
	if len(made) != 36 || made != strings.ToUpper(made) {
		t.Errorf("apns-id %q, want an upper-case UUID", made)
	}
	srv.SetScript(apnstest.Always(apnstest.Answer{Header: map[string]string{"apns-id": "", "retry-after": "7", "apns-unique-id": "u"}}))
	c.push(5)
	if h := c.response(5).header; !slices.Equal(h.Names(), []string{":status", "apns-unique-id", "retry-after"}) {
		t.Errorf("fields %v", h)
	}
}

// TestIndexedAnswers: with the dynamic table in use, and made smaller by the
// client, header blocks still mean the same.
func TestIndexedAnswers(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{IndexAnswers: true})
	c, _ := dial(t, srv, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 200})
	for i := range uint32(20) {
		id := fmt.Sprintf("123e4567-e89b-12d3-a456-%012x", i)
		c.push(2*i+1, "apns-id", id)
		if got := c.response(2*i + 1).header.Get("apns-id"); got != id {
			t.Fatalf("apns-id %q, want %q", got, id)
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	code := http2.ErrCodeEnhanceYourCalm
	srv := newServer(t, apnstest.Options{Script: apnstest.Nth(1, apnstest.Answer{Reset: &code})})
	c, _ := dial(t, srv)
	c.push(1)
	if ev := c.until(http2.FrameRSTStream); ev.stream != 1 || ev.code != code {
		t.Errorf("RST_STREAM %d %v", ev.stream, ev.code)
	}
	c.push(3)
	if got := c.response(3); got.status != "200" {
		t.Errorf("the next stream: %s", got.status)
	}
}

// TestSilenceAndNoEnd: the stream stays open, others go on.
func TestSilenceAndNoEnd(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Script: apnstest.Seq(
		apnstest.Answer{Silence: true}, apnstest.Answer{Body: []byte("{"), NoEnd: true},
	)})
	c, _ := dial(t, srv)
	c.push(1)
	c.push(3)
	c.push(5)
	var names []string
	for {
		ev := c.next()
		names = append(names, fmt.Sprintf("%v %d", ev.typ, ev.stream))
		if ev.end {
			break
		}
	}
	if want := []string{"HEADERS 3", "DATA 3", "HEADERS 5"}; !slices.Equal(names, want) {
		t.Errorf("frames %v, want %v", names, want)
	}
	if n := onlyConn(t, srv).OpenStreams(); n != 2 {
		t.Errorf("%d streams open, want 2", n)
	}
}

func TestRaw(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{
		Raw: func(fr *http2.Framer, stream uint32) {
			fr.WriteData(stream, false, []byte("before HEADERS"))
			fr.WriteRawFrame(0xee, 1, stream, []byte("odd"))
		},
	})})
	c, _ := dial(t, srv)
	c.push(1)
	if ev := c.next(); ev.typ != http2.FrameData || string(ev.data) != "before HEADERS" {
		t.Errorf("first frame %+v", ev)
	}
	if ev := c.next(); ev.typ != 0xee || string(ev.data) != "odd" {
		t.Errorf("second frame %+v", ev)
	}
}

// TestDelay: answers wait, each for itself, and come in the order they are due.
func TestDelay(t *testing.T) {
	t.Parallel()
	const rtt = 30 * time.Millisecond
	srv := newServer(t, apnstest.Options{Delay: rtt, Script: apnstest.Seq(apnstest.Answer{Delay: 2 * rtt})})
	c, _ := dial(t, srv)
	sent := time.Now()
	var order []uint32
	for id := uint32(1); id <= 9; id += 2 {
		c.push(id)
	}
	for range 5 {
		ev := c.until(http2.FrameHeaders)
		order = append(order, ev.stream)
		if d := time.Since(sent); d < rtt || ev.stream == 1 && d < 3*rtt {
			t.Errorf("stream %d answered after %v", ev.stream, d)
		}
	}
	if want := []uint32{3, 5, 7, 9, 1}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	srv.SetDelay(0)
	c.push(11)
	c.response(11)
}

// TestGoAway: reason, text, nothing, twice; streams above the last are
// ignored, the others answered.
func TestGoAway(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		code  http2.ErrCode
		debug []byte
	}{
		{"JSON", http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown")},
		{"text", http2.ErrCodeEnhanceYourCalm, []byte("go slow")},
		{"empty", http2.ErrCodeInternal, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{Delay: 20 * time.Millisecond})
			c, _ := dial(t, srv)
			for id := uint32(1); id <= 9; id += 2 {
				c.push(id)
			}
			wantWithin(t, srv.Wait(within(t), 5))
			conn := onlyConn(t, srv)
			if got := conn.LastStream(); got != 9 {
				t.Errorf("last stream %d, want 9", got)
			}
			conn.GoAway(1<<31-1, http2.ErrCodeNo, nil)
			conn.GoAway(5, tt.code, tt.debug)
			c.push(11)
			var answered []uint32
			var goAways []event
			c.fr.WritePing(false, [8]byte{})
			for len(answered) < 3 || len(goAways) < 2 {
				switch ev := c.next(); ev.typ {
				case http2.FrameHeaders:
					answered = append(answered, ev.stream)
				case http2.FrameGoAway:
					goAways = append(goAways, ev)
				}
			}
			if g := goAways[1]; g.last != 5 || g.code != tt.code || string(g.data) != string(tt.debug) {
				t.Errorf("second GOAWAY %v last %d %q", g.code, g.last, g.data)
			}
			slices.Sort(answered)
			if want := []uint32{1, 3, 5}; !slices.Equal(answered, want) {
				t.Errorf("answered %v, want %v", answered, want)
			}
			conn.CloseTLS()
			if evs, err := c.rest(); err != io.EOF || slices.ContainsFunc(evs, func(ev event) bool { return ev.typ == http2.FrameHeaders }) {
				t.Errorf("after the last answer: %v, %v", evs, err)
			}
		})
	}
}

// TestThenOrder: what a Then does comes right after its answer, whatever is
// queued behind it.
func TestThenOrder(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{
		Delay: 20 * time.Millisecond, // so that all answers are queued together
		Script: func(r *apnstest.Request) apnstest.Answer {
			if r.Stream != 5 {
				return apnstest.Answer{}
			}
			return apnstest.Answer{Then: func(c *apnstest.Conn) {
				c.Shutdown(http2.ErrCodeNo, apnstest.GoAwayReason("IdleTimeout"))
				c.Ping([8]byte{9})
				c.CloseTCP()
			}}
		},
	})
	c, _ := dial(t, srv)
	for id := uint32(1); id <= 19; id += 2 {
		c.push(id)
	}
	evs, err := c.rest()
	var names []string
	for _, ev := range evs {
		names = append(names, fmt.Sprintf("%v %d", ev.typ, ev.stream))
	}
	if want := []string{"HEADERS 1", "HEADERS 3", "HEADERS 5", "GOAWAY 0", "PING 0"}; !slices.Equal(names, want) {
		t.Errorf("frames %v, want %v", names, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		t.Errorf("error %v", err)
	}
}

// TestCloses: the ways to lose a connection, from outside and in a Then.
func TestCloses(t *testing.T) {
	t.Parallel()
	ways := map[string]struct {
		close func(*apnstest.Conn)
		want  func(error) bool
	}{
		"abruptly": {(*apnstest.Conn).CloseAbruptly, lost},
		"tls":      {(*apnstest.Conn).CloseTLS, func(err error) bool { return err == io.EOF }},
		"tcp":      {(*apnstest.Conn).CloseTCP, func(err error) bool { return err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) }},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{})
			c, _ := dial(t, srv)
			way.close(onlyConn(t, srv))
			if evs, err := c.rest(); len(evs) > 0 || !way.want(err) {
				t.Errorf("from outside: %v, %v", evs, err)
			}
			srv.SetScript(apnstest.Always(apnstest.Answer{Then: way.close}))
			c, _ = dial(t, srv)
			c.push(1)
			if got := c.response(1); got.status != "200" {
				t.Errorf("answer before the end: %s", got.status)
			}
			if evs, err := c.rest(); len(evs) > 0 || !way.want(err) {
				t.Errorf("in a Then: %v, %v", evs, err)
			}
		})
	}
}

// TestGoAwayThenClose: what was queued before an orderly close is written.
func TestGoAwayThenClose(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	conn := onlyConn(t, srv)
	conn.Shutdown(http2.ErrCodeNo, nil)
	conn.CloseTLS()
	evs, err := c.rest()
	if err != io.EOF || len(evs) != 1 || evs[0].typ != http2.FrameGoAway {
		t.Errorf("%v, %v; want GOAWAY and an orderly end", evs, err)
	}
	c.conn.Close()
	<-conn.Done()
}

// quiet fails the test if anything can be read soon.
func quiet(t *testing.T, c *client) {
	t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err := c.conn.Read(make([]byte, 1))
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("read: %v, want silence", err)
	}
	c.conn.SetReadDeadline(time.Now().Add(patience))
}

// TestStallAndMute: half-open silence, of one that does not read and of one
// that does.
func TestStallAndMute(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	stalled, _ := dial(t, srv)
	conn := onlyConn(t, srv)
	conn.Stall()
	stalled.push(1)
	stalled.fr.WritePing(false, [8]byte{})
	quiet(t, stalled)
	if n := srv.Count(); n != 0 {
		t.Errorf("%d requests handled while stalled", n)
	}
	conn.Resume()
	if got := stalled.response(1); got.status != "200" {
		t.Errorf("after the stall: %s", got.status)
	}

	muted, _ := dial(t, srv)
	srv.EachConn(func(c *apnstest.Conn) { conn = c }) // the newest comes last
	conn.Mute()
	muted.push(1)
	muted.fr.WritePing(false, [8]byte{})
	wantWithin(t, srv.Wait(within(t), 2))
	quiet(t, muted)
	conn.Resume()
	muted.push(3)
	if ev := muted.until(http2.FrameHeaders); ev.stream != 3 {
		t.Errorf("answer on stream %d, want 3: the one that fell in the mute time has none", ev.stream)
	}
}

// TestStalledClose: a stalled connection does not hold Close up.
func TestStalledClose(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Delay: time.Hour})
	c, _ := dial(t, srv)
	c.push(1)
	wantWithin(t, srv.Wait(within(t), 1))
	onlyConn(t, srv).Stall()
	c.push(3)
	srv.Close()
	srv.Close() // twice is once
}

func TestRawFrames(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	conn := onlyConn(t, srv)
	conn.WriteRaw([]byte{0, 0, 1, 0xaa, 0, 0, 0, 0, 0, 'r'})
	conn.Frames(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 77, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
	})
	conn.Ping([8]byte{1})
	conn.ResetStream(5, http2.ErrCodeCancel)
	var names []string
	for range 4 {
		ev := c.next()
		names = append(names, fmt.Sprintf("%d %d %s", ev.typ, ev.stream, ev.data[:min(1, len(ev.data))]))
	}
	if want := []string{"170 0 r", "1 77 ", "6 0 \x01", "3 5 "}; !slices.Equal(names, want) {
		t.Errorf("frames %q, want %q", names, want)
	}
	c.fr.WritePing(true, [8]byte{1}) // the acknowledgement is taken
	c.push(1)
	c.response(1)
}

// TestResetInThen: a reset does not overtake the answer of its stream, which
// was queued while the Then ran.
func TestResetInThen(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Script: func(r *apnstest.Request) apnstest.Answer {
		if r.Stream > 1 {
			return apnstest.Answer{}
		}
		return apnstest.Answer{Then: func(c *apnstest.Conn) {
			for c.LastStream() < 3 || c.OpenStreams() > 0 {
				time.Sleep(time.Millisecond)
			}
			c.ResetStream(3, http2.ErrCodeCancel)
		}}
	}})
	c, _ := dial(t, srv)
	c.push(1)
	c.response(1)
	c.push(3)
	if ev := c.next(); ev.typ != http2.FrameHeaders || ev.stream != 3 {
		t.Errorf("frame %v on %d, want the answer", ev.typ, ev.stream)
	}
	if ev := c.next(); ev.typ != http2.FrameRSTStream || ev.stream != 3 {
		t.Errorf("frame %v on %d, want RST_STREAM", ev.typ, ev.stream)
	}
}

// TestResetWhileDeciding: a script may reset the stream it is asked about.
func TestResetWhileDeciding(t *testing.T) {
	t.Parallel()
	var srv *apnstest.Server
	srv = newServer(t, apnstest.Options{Script: func(r *apnstest.Request) apnstest.Answer {
		if r.Stream < 100 {
			srv.EachConn(func(c *apnstest.Conn) { c.ResetStream(r.Stream, http2.ErrCodeCancel) })
		}
		return apnstest.Answer{}
	}})
	c, _ := dial(t, srv)
	for id := uint32(1); id <= 101; id += 2 {
		c.push(id)
	}
	for id := uint32(1); id < 100; id += 2 {
		if ev := c.next(); ev.typ != http2.FrameRSTStream || ev.stream != id {
			t.Fatalf("frame %v on %d, want RST_STREAM on %d", ev.typ, ev.stream, id)
		}
	}
	if got := c.response(101); got.status != "200" {
		t.Errorf("answer %s", got.status)
	}
}

// TestConnectionFaults: what goes wrong at a connection's beginning.
func TestConnectionFaults(t *testing.T) {
	t.Parallel()
	t.Run("no SETTINGS", func(t *testing.T) {
		t.Parallel()
		srv := newServer(t, apnstest.Options{NoSettings: true})
		c, err := dialRaw(t, srv)
		if err != nil {
			t.Fatal(err)
		}
		c.hello()
		if ev := c.next(); ev.typ != http2.FrameSettings || !ev.ack {
			t.Errorf("first frame %+v, want only the acknowledgement of ours", ev)
		}
		quiet(t, c)
	})
	t.Run("no ALPN", func(t *testing.T) {
		t.Parallel()
		srv := newServer(t, apnstest.Options{NoALPN: true})
		c, err := dialRaw(t, srv)
		if err != nil {
			t.Fatal(err)
		}
		if p := c.conn.ConnectionState().NegotiatedProtocol; p != "" {
			t.Errorf("negotiated %q", p)
		}
		c.hello()
		quiet(t, c)
	})
	t.Run("slow handshake", func(t *testing.T) {
		t.Parallel()
		const wait = 50 * time.Millisecond
		srv := newServer(t, apnstest.Options{SlowHandshake: wait})
		begin := time.Now()
		dial(t, srv)
		if d := time.Since(begin); d < wait {
			t.Errorf("handshake took %v, want at least %v", d, wait)
		}
	})
	t.Run("handshake never", func(t *testing.T) {
		t.Parallel()
		srv := newServer(t, apnstest.Options{SlowHandshake: time.Hour})
		nc, err := net.Dial("tcp", srv.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		wantWithin(t, srv.WaitDials(within(t), 1))
		srv.Close()
	})
	t.Run("OnConn", func(t *testing.T) {
		t.Parallel()
		srv := newServer(t, apnstest.Options{OnConn: func(c *apnstest.Conn) {
			c.GoAway(0, http2.ErrCodeNo, apnstest.GoAwayReason("BadCertificate"))
			c.CloseTLS()
		}})
		c, err := dialRaw(t, srv)
		if err != nil {
			t.Fatal(err)
		}
		evs, err := c.rest()
		if len(evs) != 2 || evs[1].typ != http2.FrameGoAway || err != io.EOF {
			t.Errorf("%v, %v; want SETTINGS, GOAWAY, end", evs, err)
		}
	})
}

// TestListening: refusing, absent, back on the same port; dials are counted.
func TestListening(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	first, _ := dial(t, srv)
	srv.RefuseConnections(true)
	if _, err := dialRaw(t, srv); err == nil {
		t.Error("a handshake succeeded while connections are refused")
	}
	srv.RefuseConnections(false)
	srv.StopListening()
	if nc, err := net.Dial("tcp", srv.Addr); err == nil {
		nc.Close()
		t.Error("a connection succeeded while not listening")
	}
	first.push(1)
	if got := first.response(1); got.status != "200" {
		t.Errorf("on the open connection: %s", got.status)
	}
	if err := srv.Resume(); err != nil {
		t.Fatal(err)
	}
	dial(t, srv)
	wantWithin(t, srv.WaitHandshakes(within(t), 2))
	if srv.Dials() != 3 || srv.Handshakes() != 2 || srv.Conns() != 2 {
		t.Errorf("dials %d, handshakes %d, open %d; want 3, 2, 2", srv.Dials(), srv.Handshakes(), srv.Conns())
	}
	if _, err := apnstest.Start(apnstest.Options{Addr: srv.Addr}); err == nil || !strings.Contains(err.Error(), srv.Addr) {
		t.Errorf("taken address: %v", err)
	}
}

// TestLargeHeaderList: an answer whose header block spans full frames.
func TestLargeHeaderList(t *testing.T) {
	t.Parallel()
	header := make(map[string]string)
	for i := range 10 {
		header[fmt.Sprintf("x-%d", i)] = strings.Repeat(string(rune('a'+i)), 5000)
	}
	srv := newServer(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Header: header})})
	c, _ := dial(t, srv)
	c.dec = hpack.NewDecoder(4096, nil)
	c.push(1)
	got := readAnswer(c, 1)
	if len(got.frames) < 2 || got.header.Get("x-9") != header["x-9"] {
		t.Errorf("%d frames, %d fields", len(got.frames), len(got.header))
	}
}
