package apnsconn

import (
	"bytes"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// A new connection takes at once what SETTINGS allow, also when the first answer is slow.
func TestSettingsHoldAtOnce(t *testing.T) {
	t.Parallel()
	limit := func(n uint32) []http2.Setting {
		return []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: n}}
	}
	for _, tt := range []struct {
		name  string
		first []http2.Setting
		want  int
	}{
		{"fewer than in flight", limit(20), 20},
		{"more", limit(1000), 50},
		{"one, as with a provider token", limit(1), 1},
		{"no word of it", nil, 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubbleWith(t, Config{InFlight: 50}, tt.first, func(t *testing.T, c *Conn, p *peer) {
				if n := c.Free(); n != tt.want {
					t.Errorf("Free %d on a new connection, want %d", n, tt.want)
				}
				o := newOutcomes(t)
				o.send(c, 0, 50)
				p.settle()
				if n := p.opened(); n != tt.want {
					t.Fatalf("%d streams before the first answer, want %d", n, tt.want)
				}
				if open, limit := c.Streams(); open != 50 || limit != tt.want {
					t.Errorf("%d of %d streams, want 50 of %d", open, limit, tt.want)
				}
				p.answer("410", 1)
				if n := p.opened(); n != min(tt.want+1, 50) {
					t.Errorf("%d streams after an answer, want %d", n, min(tt.want+1, 50))
				}
			})
		})
	}
}

func TestInFlightIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 3}, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		o.send(c, 0, 5)
		o.want(map[Class]int{NotSent: 2})
		if err := o.get(3).Err; err != ErrFull {
			t.Errorf("Err %v", err)
		}
		if n := c.Free(); n != 0 {
			t.Errorf("Free %d, want 0", n)
		}
	})
}

func TestStreamLimit(t *testing.T) {
	t.Parallel()
	var changes atomic.Int64
	cfg := Config{InFlight: 500, OnChange: func() { changes.Add(1) }}
	bubbleWith(t, cfg, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}, func(t *testing.T, c *Conn, p *peer) {
		limit := func(n uint32) { p.do(settings(http2.SettingMaxConcurrentStreams, n)) }
		wantFree := func(want int) {
			t.Helper()
			if n := c.Free(); n != want {
				t.Errorf("Free %d, want %d", n, want)
			}
		}
		wantOpened := func(want int) {
			t.Helper()
			if n := p.opened(); n != want {
				t.Errorf("%d streams opened, want %d", n, want)
			}
		}
		o := newOutcomes(t)
		p.open(c)
		wantFree(1)
		o.send(c, 0, 3)
		p.settle()
		wantOpened(2)

		before := changes.Load()
		limit(1000)
		if changes.Load() == before {
			t.Error("OnChange not called for a raised limit")
		}
		wantOpened(4)
		wantFree(497)

		limit(1)
		wantFree(0)
		o.send(c, 3, 1)
		p.settle()
		wantOpened(4)
		p.answer("200", 3, 5)
		wantOpened(4) // one is still open
		p.answer("200", 7)
		wantOpened(5)

		limit(0)
		p.answer("200", 9)
		wantFree(0)
		o.send(c, 4, 1)
		p.settle()
		wantOpened(5)
		if !c.Usable() {
			t.Error("not usable with a limit of 0")
		}

		limit(1)
		wantOpened(6)
		p.answer("200", 11)
		o.want(map[Class]int{Delivered: 5})
		wantFree(1)
	})
}

func TestSendWindows(t *testing.T) {
	t.Parallel()
	big := testPush()
	big.Payload = bytes.Repeat([]byte("0123456789"), 10)

	t.Run("tiny", func(t *testing.T) {
		t.Parallel()
		bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1}}, func(t *testing.T, c *Conn, p *peer) {
			o := newOutcomes(t)
			c.Send(big, o.done(0))
			p.settle()
			for range 10 {
				p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 1) })
			}
			if n := len(p.seen(1).body); n != 11 {
				t.Errorf("%d bytes sent, want 11", n)
			}
			p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 1000) })
			wantBody(t, p, 1, big.Payload)
		})
	})

	t.Run("none at first", func(t *testing.T) {
		t.Parallel()
		bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(t *testing.T, c *Conn, p *peer) {
			o := newOutcomes(t)
			c.Send(big, o.done(0))
			p.settle()
			p.do(settings(http2.SettingInitialWindowSize, 99))
			if n := len(p.seen(1).body); n != 99 {
				t.Errorf("%d bytes sent, want 99", n)
			}
			p.do(settings(http2.SettingInitialWindowSize, 100))
			wantBody(t, p, 1, big.Payload)
		})
	})

	t.Run("negative", func(t *testing.T) {
		t.Parallel()
		bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 60}}, func(t *testing.T, c *Conn, p *peer) {
			o := newOutcomes(t)
			c.Send(big, o.done(0))
			p.settle()
			p.do(settings(http2.SettingInitialWindowSize, 10)) // 60 sent: now at -50
			p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 50) })
			if n := len(p.seen(1).body); n != 60 {
				t.Errorf("%d bytes sent, want 60", n)
			}
			p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 1) })
			if n := len(p.seen(1).body); n != 61 {
				t.Errorf("%d bytes sent, want 61", n)
			}
			p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 39) })
			wantBody(t, p, 1, big.Payload)
		})
	})

	t.Run("connection", func(t *testing.T) {
		t.Parallel()
		bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
			huge := testPush()
			huge.Payload = bytes.Repeat([]byte("x"), 30_000)
			p.open(c) // 25 bytes
			o := newOutcomes(t)
			for i := range 5 {
				c.Send(huge, o.done(i))
			}
			p.settle()
			// 65535 bytes: two whole payloads and the beginning of a third; the
			// rest has not even a stream.
			if n := p.opened(); n != 4 {
				t.Errorf("%d streams, want 4", n)
			}
			if n := len(p.seen(7).body); n != 65535-25-60_000 {
				t.Errorf("%d bytes of the third", n)
			}
			for i := range 3 {
				p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 30_000) })
				if n := p.opened(); n != min(6, 5+i) {
					t.Errorf("%d streams after %d updates", n, i+1)
				}
			}
			for id := uint32(3); id <= 11; id += 2 {
				wantBody(t, p, id, huge.Payload)
			}
		})
	})

	t.Run("withheld", func(t *testing.T) {
		t.Parallel()
		bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
			p.open(c)
			filler := testPush()
			filler.Payload = make([]byte, 65535-25)
			o := newOutcomes(t)
			c.Send(filler, o.done(0))
			o.send(c, 1, 3)
			c.Send(&Notification{Token: testToken}, o.done(4)) // needs no window, but keeps its place
			p.settle()
			if n := p.opened(); n != 2 {
				t.Errorf("%d streams, want 2", n)
			}
			c.Close()
			o.want(map[Class]int{Unknown: 1, NotSent: 4})
		})
	})
}

func wantBody(t *testing.T, p *peer, id uint32, want []byte) {
	t.Helper()
	s := p.seen(id)
	if !bytes.Equal(s.body, want) || !s.ended {
		t.Errorf("stream %d: body of %d bytes, ended %v, want %d", id, len(s.body), s.ended, len(want))
	}
}

func TestFramesAreSplit(t *testing.T) {
	t.Parallel()
	bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingMaxFrameSize, Val: 1 << 20}}, func(t *testing.T, c *Conn, p *peer) {
		n := testPush()
		n.Payload = bytes.Repeat([]byte("x"), 40_000)
		for _, v := range []*string{&n.Token, &n.Topic, &n.PushType, &n.CollapseID, &n.ID} {
			*v = string(bytes.Repeat([]byte("X"), maxHeaderValue)) // no short Huffman code
		}
		o := newOutcomes(t)
		c.Send(n, o.done(0))
		p.settle()
		wantBody(t, p, 1, n.Payload)
		s := p.seen(1)
		continued := false
		for _, f := range s.frames {
			continued = continued || f.Type == http2.FrameContinuation
			if f.Length > 1<<14 {
				t.Errorf("%v of %d bytes", f.Type, f.Length)
			}
		}
		if !continued {
			t.Error("no CONTINUATION was needed: the test does not test")
		}
		if len(s.fields) != 8 {
			t.Errorf("%d fields", len(s.fields))
		}
	})
}

// An answer may come before all of the request has been sent.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 3}}, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		o.send(c, 0, 1)
		p.settle()
		p.answer("413", 1)
		o.want(map[Class]int{Rejected: 1})
		p.wantResets(map[uint32]http2.ErrCode{1: http2.ErrCodeCancel})
		p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 100) })
		if n := len(p.seen(1).body); n != 3 || !c.Usable() {
			t.Errorf("%d bytes sent, want 3; %v", n, c.Err())
		}
	})
}

func TestStreamIDsRunOut(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		c.mu.Lock()
		c.nextID = maxStreamID - 2
		c.mu.Unlock()
		o := newOutcomes(t)
		o.send(c, 0, 3)
		p.settle()
		o.want(map[Class]int{NotSent: 1})
		if c.Usable() || c.Err() != errStreamIDs {
			t.Errorf("usable, or %v", c.Err())
		}
		p.answer("200", maxStreamID-2, maxStreamID)
		<-c.Done()
		o.want(map[Class]int{NotSent: 1, Delivered: 2})
		p.wantGoAway(http2.ErrCodeNo)
	})
}

// More streams are reset than are remembered one by one.
func TestManyResetStreams(t *testing.T) {
	t.Parallel()
	var r resetStreams
	for id := uint32(1); id < 10*maxResetIDs; id += 2 {
		r.add(id)
	}
	if len(r.ids) != maxResetIDs {
		t.Errorf("%d kept", len(r.ids))
	}
	for id := uint32(1); id < 10*maxResetIDs; id += 2 {
		if !r.has(id) {
			t.Fatalf("%d forgotten", id)
		}
	}
	if r.has(10*maxResetIDs + 1) {
		t.Error("knows a stream that was not reset")
	}
}
