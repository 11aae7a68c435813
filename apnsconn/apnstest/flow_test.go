package apnstest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// TestFirstSettings: the first SETTINGS frame says what APNs' says, or what
// was asked for.
func TestFirstSettings(t *testing.T) {
	t.Parallel()
	ask := func(n uint32) apnstest.Settings { return apnstest.Settings{MaxConcurrentStreams: &n} }
	tests := []struct {
		name    string
		opt     apnstest.Options
		streams []uint32
	}{
		{"Apple's", apnstest.Options{}, []uint32{1000}},
		{"none", apnstest.Options{Settings: ask(0)}, []uint32{0}},
		{"one", apnstest.Options{Settings: ask(1)}, []uint32{1}},
		{"no limit", apnstest.Options{Settings: apnstest.Settings{NoStreamLimit: true}}, nil},
		{"one first", apnstest.Options{OneStreamFirst: true}, []uint32{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, settings := dial(t, newServer(t, tt.opt))
			want := map[http2.SettingID][]uint32{
				http2.SettingHeaderTableSize: {4096}, http2.SettingInitialWindowSize: {65535},
				http2.SettingMaxFrameSize: {16384}, http2.SettingMaxHeaderListSize: {8000},
				http2.SettingMaxConcurrentStreams: tt.streams,
			}
			for id, values := range want {
				var got []uint32
				for _, s := range settings {
					if s.ID == id {
						got = append(got, s.Val)
					}
				}
				if !slices.Equal(got, values) {
					t.Errorf("%v: %v, want %v", id, got, values)
				}
			}
		})
	}
}

// TestConnectionWindow: DATA is acknowledged in steps of 32 KiB, unless it is
// withheld.
func TestConnectionWindow(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{NoValidation: true})
	c, _ := dial(t, srv)
	send := func(id uint32) {
		c.headers(id, false, pushFields()...)
		c.fr.WriteData(id, true, make([]byte, 16384))
	}
	send(1)
	if r := c.response(1); r.status != "200" {
		t.Fatal(r.status)
	}
	send(3)
	if ev := c.until(http2.FrameWindowUpdate); ev.stream != 0 || ev.incr != 32768 {
		t.Errorf("WINDOW_UPDATE %d on %d, want 32768 on 0", ev.incr, ev.stream)
	}
	c.response(3)

	conn := onlyConn(t, srv)
	conn.WithholdWindowUpdates(true)
	for id := uint32(5); id < 11; id += 2 {
		send(id)
		for _, ev := range c.response(id).frames {
			if ev.typ == http2.FrameWindowUpdate {
				t.Error("WINDOW_UPDATE while withheld")
			}
		}
	}
	conn.WithholdWindowUpdates(false)
	if ev := c.until(http2.FrameWindowUpdate); ev.incr != 3*16384 {
		t.Errorf("WINDOW_UPDATE %d, want all that was withheld, %d", ev.incr, 3*16384)
	}
	conn.WindowUpdate(0, 7)
	if ev := c.until(http2.FrameWindowUpdate); ev.incr != 7 {
		t.Errorf("WINDOW_UPDATE %d, want 7", ev.incr)
	}
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

func TestLargeConnectionWindow(t *testing.T) {
	t.Parallel()
	c, err := dialRaw(t, newServer(t, apnstest.Options{ConnWindow: 1 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	c.hello()
	if ev := c.until(http2.FrameWindowUpdate); ev.stream != 0 || ev.incr != 1<<20-65535 {
		t.Errorf("WINDOW_UPDATE %d on %d", ev.incr, ev.stream)
	}
}

// TestDelayedWindow: WINDOW_UPDATE takes the round trip too, when asked for.
func TestDelayedWindow(t *testing.T) {
	t.Parallel()
	const rtt = 50 * time.Millisecond
	srv := newServer(t, apnstest.Options{NoValidation: true, Delay: rtt, DelayWindowUpdates: true})
	c, _ := dial(t, srv)
	c.headers(1, false, pushFields()...)
	sent := time.Now()
	for range 2 {
		c.fr.WriteData(1, false, make([]byte, 16384))
	}
	for {
		if ev := c.until(http2.FrameWindowUpdate); ev.stream == 0 {
			break
		}
	}
	if d := time.Since(sent); d < rtt {
		t.Errorf("WINDOW_UPDATE after %v, want at least %v", d, rtt)
	}
}

// TestStreamWindow: a body larger than a small window can be sent piece by
// piece, and a window of nothing opens by hand.
func TestStreamWindow(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Settings: apnstest.Settings{InitialWindowSize: new(uint32(10))}})
	c, _ := dial(t, srv)
	c.headers(1, false, pushFields()...)
	body := strings.Repeat("0123456789", 5)
	for len(body) > 10 {
		c.fr.WriteData(1, false, []byte(body[:10]))
		body = body[10:]
		if ev := c.until(http2.FrameWindowUpdate); ev.stream != 1 || ev.incr != 10 {
			t.Fatalf("WINDOW_UPDATE %d on %d, want 10 on 1", ev.incr, ev.stream)
		}
	}
	c.fr.WriteData(1, true, []byte(body))
	if got := c.response(1); got.status != "200" {
		t.Errorf("answer %s", got.status)
	}

	conn := onlyConn(t, srv)
	conn.Settings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.until(http2.FrameSettings)
	c.fr.WriteSettingsAck()
	c.headers(3, false, pushFields()...)
	c.fr.WritePing(false, [8]byte{})
	c.until(http2.FramePing) // the server has stream 3 now
	conn.WindowUpdate(3, 2)
	c.until(http2.FrameWindowUpdate)
	c.fr.WriteData(3, true, []byte("{}"))
	if got := c.response(3); got.status != "200" {
		t.Errorf("answer %s", got.status)
	}
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// TestLaterSettings: sizes that change mid-way hold once they are acknowledged.
func TestLaterSettings(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{NoValidation: true})
	c, _ := dial(t, srv)
	onlyConn(t, srv).Settings(
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: 30000},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 400},
	)
	c.until(http2.FrameSettings)
	c.fr.WriteSettingsAck()
	c.headers(1, false, pushFields()...)
	c.fr.WriteData(1, true, make([]byte, 30000))
	if got := c.response(1); got.status != "200" {
		t.Errorf("a large frame: %s", got.status)
	}
	c.push(3, "x-long", strings.Repeat("x", 400))
	if got := c.response(3); got.status != "431" {
		t.Errorf("a long list: %s, want 431", got.status)
	}
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
	c.fr.WriteSettingsAck() // of nothing
	c.push(5)
	c.response(5)
	if v := srv.Violations(); len(v) != 1 {
		t.Errorf("violations %q, want one", v)
	}
}

// TestAnswersObeyWindows: bodies of answers wait for the client's windows,
// also when SETTINGS make those negative.
func TestAnswersObeyWindows(t *testing.T) {
	t.Parallel()
	const body = "0123456789abcdefghij"
	srv := newServer(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 400, Body: []byte(body)})})
	c, _ := dial(t, srv, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 8})
	c.push(1)
	if ev := c.until(http2.FrameData); string(ev.data) != body[:8] || ev.end {
		t.Fatalf("DATA %q, end %v, want the first 8 bytes", ev.data, ev.end)
	}
	c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}) // window: -5
	c.until(http2.FrameSettings)
	c.fr.WriteWindowUpdate(1, 7)
	if ev := c.until(http2.FrameData); string(ev.data) != body[8:10] {
		t.Fatalf("DATA %q, want 2 bytes more", ev.data)
	}
	c.push(3) // waits too, and is reset
	if ev := c.until(http2.FrameData); ev.stream != 3 || len(ev.data) != 3 {
		t.Fatalf("DATA %q on stream %d, want 3 bytes on 3", ev.data, ev.stream)
	}
	c.fr.WriteRSTStream(3, http2.ErrCodeCancel)
	c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	got := c.response(1)
	if got.body != body[10:] {
		t.Errorf("the rest is %q, want %q", got.body, body[10:])
	}
}

// TestStreamLimit: a stream above the limit is refused; it is a violation
// when the client has acknowledged the limit.
func TestStreamLimit(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Silence: true})})
	c, _ := dial(t, srv)
	conn := onlyConn(t, srv)
	c.push(1)
	wantWithin(t, srv.Wait(within(t), 1))
	conn.MaxStreams(1)
	c.push(3) // the limit is not acknowledged yet
	if ev := c.until(http2.FrameRSTStream); ev.stream != 3 || ev.code != http2.ErrCodeRefusedStream {
		t.Errorf("RST_STREAM %d %v, want 3 REFUSED_STREAM", ev.stream, ev.code)
	}
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("violations before the acknowledgement: %q", v)
	}
	c.fr.WriteSettingsAck()
	c.push(5)
	if ev := c.until(http2.FrameRSTStream); ev.stream != 5 || ev.code != http2.ErrCodeRefusedStream {
		t.Errorf("RST_STREAM %d %v, want 5 REFUSED_STREAM", ev.stream, ev.code)
	}
	if v := srv.Violations(); len(v) != 1 {
		t.Errorf("violations after the acknowledgement: %q, want one", v)
	}
	conn.MaxStreams(2)
	c.until(http2.FrameSettings)
	srv.SetScript(nil)
	c.push(7)
	if got := c.response(7); got.status != "200" {
		t.Errorf("answer %s", got.status)
	}
	if n := srv.Stats().Refused; n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
}

func TestGoAwayOnExcess(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{
		GoAwayOnExcess: true,
		Settings:       apnstest.Settings{MaxConcurrentStreams: new(uint32(1))},
		Script:         apnstest.Always(apnstest.Answer{Silence: true}),
	})
	c, _ := dial(t, srv)
	c.push(1)
	c.push(3)
	ev := c.until(http2.FrameGoAway)
	if ev.code != http2.ErrCodeRefusedStream || ev.last != 1 || !strings.HasPrefix(string(ev.data), "Maximum active streams") {
		t.Errorf("GOAWAY %v last %d %q", ev.code, ev.last, ev.data)
	}
}

// streamLimits returns the limits in the SETTINGS frames among evs.
func streamLimits(evs []event) []uint32 {
	var limits []uint32
	for _, ev := range evs {
		for _, s := range ev.settings {
			if s.ID == http2.SettingMaxConcurrentStreams {
				limits = append(limits, s.Val)
			}
		}
	}
	return limits
}

// TestAdaptiveLimit: one stream until the first success, one after a 4xx.
func TestAdaptiveLimit(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{OneStreamFirst: true, DropTo1After4xx: true, Script: apnstest.TokenCodes})
	c, settings := dial(t, srv)
	limits := streamLimits([]event{{settings: settings}})
	for i, end := range []string{"fa170500", "00", "fa170410", "fa170400", "fa170400", "00", "00"} {
		id := uint32(2*i + 1)
		c.push(id, ":path", "/3/device/abcdef"+end)
		c.fr.WritePing(false, [8]byte{})
		for ev := c.next(); ev.typ != http2.FramePing; ev = c.next() {
			limits = append(limits, streamLimits([]event{ev})...)
		}
	}
	if want := []uint32{1, 1000, 1, 1000}; !slices.Equal(limits, want) {
		t.Errorf("stream limits %v, want %v", limits, want)
	}
}
