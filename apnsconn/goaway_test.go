package apnsconn

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestGoAway(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 100}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 5))
		o := newOutcomes(t)
		o.send(c, 0, 8) // streams 3 to 11; three wait
		p.settle()
		p.do(func(fr *http2.Framer) {
			fr.WriteGoAway(7, http2.ErrCodeNo, []byte(`{"reason":"Shutdown"}`))
		})
		o.want(map[Class]int{NotSent: 5})
		if c.Usable() || c.Free() != 0 {
			t.Error("still usable")
		}
		var goAway *GoAwayError
		if err := c.Err(); !errors.As(err, &goAway) {
			t.Fatalf("Err %v", err)
		}
		if goAway.Reason != "Shutdown" || goAway.LastStreamID != 7 || goAway.Code != http2.ErrCodeNo ||
			string(goAway.Debug) != `{"reason":"Shutdown"}` || errors.Is(goAway, ErrCredential) {
			t.Errorf("%+v", goAway)
		}
		if err := o.get(7).Err; err != error(goAway) {
			t.Errorf("Err of a push that waited: %v", err)
		}
		o.send(c, 8, 1)
		o.want(map[Class]int{NotSent: 6})

		p.answer("200", 3, 9) // 9 was given up: ignored
		p.do(func(fr *http2.Framer) { fr.WriteGoAway(5, http2.ErrCodeNo, nil) })
		o.want(map[Class]int{NotSent: 7, Delivered: 1})
		select {
		case <-c.Done():
			t.Error("ended with an open stream")
		default:
		}
		p.answer("400", 5)
		<-c.Done()
		o.want(map[Class]int{NotSent: 7, Delivered: 1, Rejected: 1})
		p.wantGoAway(http2.ErrCodeNo)
		if err := c.Err(); err != error(goAway) {
			t.Errorf("Err %v at the end", err)
		}
	})
}

// An answer counts more than the word, later, that there will be none.
func TestGoAwayBelowAnAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 3) // streams 3 to 7
		p.settle()
		p.do(func(fr *http2.Framer) {
			for id, status := range map[uint32]string{3: "200", 5: "400"} {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", status), EndHeaders: true})
			}
			fr.WriteGoAway(1, http2.ErrCodeNo, nil)
		})
		<-c.Done()
		o.want(map[Class]int{Delivered: 1, Unavailable: 1, NotSent: 1})
	})
}

func TestGoAwayThenClose(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 4)
		p.settle()
		p.do(func(fr *http2.Framer) { fr.WriteGoAway(5, http2.ErrCodeInternal, []byte("oops\x00 there")) })
		p.nc.Close()
		<-c.Done()
		o.want(map[Class]int{NotSent: 2, Unknown: 2})
		var goAway *GoAwayError
		if !errors.As(c.Err(), &goAway) || goAway.Reason != "oops there" {
			t.Errorf("Err %v", c.Err())
		}
	})
}

func TestGoAwayDrainIsBounded(t *testing.T) {
	t.Parallel()
	cfg := Config{DrainTimeout: 5 * time.Second}
	bubble(t, cfg, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 2)
		p.settle()
		start := time.Now()
		p.do(func(fr *http2.Framer) { fr.WriteGoAway(5, http2.ErrCodeNo, nil) })
		<-c.Done()
		if d := time.Since(start); d != cfg.DrainTimeout {
			t.Errorf("ended after %v", d)
		}
		o.want(map[Class]int{Unknown: 2})
	})
}

func TestGoAwayReasons(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		debug      string
		reason     string
		credential bool
	}{
		{"", "", false},
		{`{"reason":"BadCertificate"}`, "BadCertificate", true},
		{`{"reason":"BadCertificateEnvironment"}`, "BadCertificateEnvironment", true},
		{`{"reason":"InvalidProviderToken","timestamp":12}`, "InvalidProviderToken", true},
		{`{"reason":"IdleTimeout"}`, "IdleTimeout", false},
		{`{"reason":"Whatever"}`, "Whatever", false},
		{"Maximum active streams violated for this endpoint.", "Maximum active streams violated for this endpoint.", false},
		{long, long[:maxReason], false},
	} {
		bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
			p.do(func(fr *http2.Framer) { fr.WriteGoAway(0, http2.ErrCodeNo, []byte(tt.debug)) })
			<-c.Done()
			var goAway *GoAwayError
			if !errors.As(c.Err(), &goAway) {
				t.Fatalf("Err %v", c.Err())
			}
			if goAway.Reason != tt.reason || errors.Is(c.Err(), ErrCredential) != tt.credential || len(goAway.Debug) > maxDebug {
				t.Errorf("%.60q: reason %q, credential %v", tt.debug, goAway.Reason, errors.Is(c.Err(), ErrCredential))
			}
		})
	}
}

// A first GOAWAY without reason is followed by one that has it.
func TestSecondGoAwayHasTheReason(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 1)
		p.settle()
		p.do(func(fr *http2.Framer) {
			fr.WriteGoAway(maxStreamID, http2.ErrCodeNo, nil)
			fr.WriteGoAway(1, http2.ErrCodeNo, []byte(`{"reason":"BadCertificate"}`))
		})
		<-c.Done()
		o.want(map[Class]int{NotSent: 1})
		if !errors.Is(c.Err(), ErrCredential) {
			t.Errorf("Err %v", c.Err())
		}
	})
}

func TestStreamResets(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 4) // streams 3 to 9
		p.settle()
		p.do(func(fr *http2.Framer) {
			fr.WriteRSTStream(3, http2.ErrCodeRefusedStream)
			fr.WriteRSTStream(5, http2.ErrCodeInternal)
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: block(":status", "200"), EndHeaders: true})
			fr.WriteRSTStream(7, http2.ErrCodeNo)
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 9, BlockFragment: block(":status", "400"), EndHeaders: true})
			fr.WriteRSTStream(9, http2.ErrCodeRefusedStream)
		})
		for i, want := range []Class{NotSent, Unknown, Delivered, Unavailable} {
			if got := o.get(i); got.Class != want {
				t.Errorf("push %d: %+v, want class %v", i, got, want)
			}
		}
		var reset *streamError
		if err := o.get(1).Err; !errors.As(err, &reset) || reset.Code != http2.ErrCodeInternal || !reset.Remote {
			t.Errorf("Err %v", err)
		}
		p.wantResets(nil)
		if !c.Usable() {
			t.Error(c.Err())
		}
	})
}

// Some answers concern the connection: it must be replaced.
func TestSuspectAnswers(t *testing.T) {
	t.Parallel()
	t.Run("Shutdown", func(t *testing.T) {
		t.Parallel()
		bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
			p.open(c)
			o := newOutcomes(t)
			o.send(c, 0, 2)
			p.settle()
			p.do(func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block(":status", "503"), EndHeaders: true})
				fr.WriteData(3, true, []byte(`{"reason":"Shutdown"}`))
			})
			var suspect *suspectError
			if c.Usable() || !errors.As(c.Err(), &suspect) || suspect.Reason != "Shutdown" {
				t.Errorf("usable, or %v", c.Err())
			}
			p.answer("200", 5)
			<-c.Done()
			o.want(map[Class]int{Unavailable: 1, Delivered: 1})
			p.wantGoAway(http2.ErrCodeNo)
		})
	})
	t.Run("three times 500", func(t *testing.T) {
		t.Parallel()
		bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
			p.open(c)
			o := newOutcomes(t)
			o.send(c, 0, 6)
			p.settle()
			p.answer("500", 3, 5)
			p.answer("200", 7)
			p.answer("500", 9, 11)
			if !c.Usable() {
				t.Fatalf("given up too early: %v", c.Err())
			}
			p.answer("500", 13)
			<-c.Done()
			if c.Err() != errServerFault {
				t.Errorf("Err %v", c.Err())
			}
		})
	})
}
