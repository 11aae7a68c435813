package apnsconn

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What the peer may not do ends the connection with the right code, and every
// push with it.
func TestBreaches(t *testing.T) {
	t.Parallel()
	headers := func(fr *http2.Framer, stream uint32, end bool, b []byte) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b, EndHeaders: true, EndStream: end})
	}
	ok := block(":status", "200")
	for _, tt := range []struct {
		name string
		do   func(fr *http2.Framer)
		code http2.ErrCode
	}{
		{"HEADERS on a stream never opened", func(fr *http2.Framer) { headers(fr, 99, true, ok) }, http2.ErrCodeProtocol},
		{"HEADERS on an even stream", func(fr *http2.Framer) { headers(fr, 2, true, ok) }, http2.ErrCodeProtocol},
		{"DATA on a stream never opened", func(fr *http2.Framer) { fr.WriteData(99, true, nil) }, http2.ErrCodeProtocol},
		{"RST_STREAM on a stream never opened", func(fr *http2.Framer) { fr.WriteRSTStream(99, 0) }, http2.ErrCodeProtocol},
		{"WINDOW_UPDATE on a stream never opened", func(fr *http2.Framer) { fr.WriteWindowUpdate(99, 1) }, http2.ErrCodeProtocol},
		{"HEADERS on stream 0", func(fr *http2.Framer) { headers(fr, 0, true, ok) }, http2.ErrCodeProtocol},
		{"DATA after END_STREAM", func(fr *http2.Framer) { fr.WriteData(1, true, []byte("x")) }, http2.ErrCodeStreamClosed},
		{"HEADERS after END_STREAM", func(fr *http2.Framer) { headers(fr, 1, true, ok) }, http2.ErrCodeStreamClosed},
		{"frame too large", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameData, 0, 3, make([]byte, 16<<10+1)) }, http2.ErrCodeFrameSize},
		{"HPACK index out of range", func(fr *http2.Framer) { headers(fr, 3, true, []byte{0xff, 0xff, 0x03}) }, http2.ErrCodeCompression},
		{"HPACK cut short", func(fr *http2.Framer) { headers(fr, 3, true, []byte{0x40, 0x05, 'a'}) }, http2.ErrCodeCompression},
		{"HPACK string too long", func(fr *http2.Framer) { headers(fr, 3, true, []byte{0x00, 0x7f, 0xff, 0xff, 0x7f}) }, http2.ErrCodeCompression},
		{"HPACK table larger than allowed", func(fr *http2.Framer) { headers(fr, 3, true, []byte{0x3f, 0xff, 0xff, 0x7f}) }, http2.ErrCodeCompression},
		{"header block interrupted", func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: ok})
			fr.WritePing(false, [8]byte{})
		}, http2.ErrCodeProtocol},
		{"CONTINUATION out of nowhere", func(fr *http2.Framer) { fr.WriteContinuation(3, true, ok) }, http2.ErrCodeProtocol},
		{"endless CONTINUATION", func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: ok})
			for range maxContinuations {
				fr.WriteContinuation(3, false, nil)
			}
		}, http2.ErrCodeEnhanceYourCalm},
		{"header block too long", func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: ok})
			for range 2 {
				fr.WriteContinuation(3, false, block("a", strings.Repeat("\x00", maxHeaderList-10)))
			}
			fr.WriteContinuation(3, false, make([]byte, 100))
		}, http2.ErrCodeEnhanceYourCalm},
		{"PUSH_PROMISE", func(fr *http2.Framer) {
			fr.WritePushPromise(http2.PushPromiseParam{StreamID: 3, PromiseID: 2, BlockFragment: ok, EndHeaders: true})
		}, http2.ErrCodeProtocol},
		{"ENABLE_PUSH 1", settings(http2.SettingEnablePush, 1), http2.ErrCodeProtocol},
		{"INITIAL_WINDOW_SIZE too large", settings(http2.SettingInitialWindowSize, 1<<31), http2.ErrCodeFlowControl},
		{"MAX_FRAME_SIZE too small", settings(http2.SettingMaxFrameSize, 1<<14-1), http2.ErrCodeProtocol},
		{"MAX_FRAME_SIZE too large", settings(http2.SettingMaxFrameSize, 1<<24), http2.ErrCodeProtocol},
		{"INITIAL_WINDOW_SIZE overflows an open stream", func(fr *http2.Framer) {
			fr.WriteWindowUpdate(3, maxWindow-65535)
			settings(http2.SettingInitialWindowSize, maxWindow)(fr)
		}, http2.ErrCodeFlowControl},
		{"connection window overflow", func(fr *http2.Framer) { fr.WriteWindowUpdate(0, maxWindow) }, http2.ErrCodeFlowControl},
		{"connection window update of 0", func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 0) }, http2.ErrCodeProtocol},
		{"SETTINGS of half a setting", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, http2.ErrCodeFrameSize},
		{"SETTINGS on a stream", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameSettings, 0, 3, nil) }, http2.ErrCodeProtocol},
		{"SETTINGS with far too many", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 6*(maxSettings+1))) }, http2.ErrCodeEnhanceYourCalm},
		{"acknowledges SETTINGS twice", func(fr *http2.Framer) { fr.WriteSettingsAck(); fr.WriteSettingsAck() }, http2.ErrCodeProtocol},
		{"PING of 7 bytes", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }, http2.ErrCodeFrameSize},
		{"PING on a stream", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FramePing, 0, 3, make([]byte, 8)) }, http2.ErrCodeProtocol},
		{"RST_STREAM of 3 bytes", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameRSTStream, 0, 3, make([]byte, 3)) }, http2.ErrCodeFrameSize},
		{"WINDOW_UPDATE of 3 bytes", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 3, make([]byte, 3)) }, http2.ErrCodeFrameSize},
		{"GOAWAY on a stream", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameGoAway, 0, 3, make([]byte, 8)) }, http2.ErrCodeProtocol},
		{"GOAWAY of 7 bytes", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameGoAway, 0, 0, make([]byte, 7)) }, http2.ErrCodeFrameSize},
		{"DATA with more padding than payload", func(fr *http2.Framer) {
			fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 3, []byte{200, 1})
		}, http2.ErrCodeProtocol},
		{"DATA padded and empty", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 3, nil) }, http2.ErrCodeProtocol},
		{"HEADERS with more padding than payload", func(fr *http2.Framer) {
			fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 3, []byte{200, 0x88})
		}, http2.ErrCodeProtocol},
		{"HEADERS with priority cut short", func(fr *http2.Framer) {
			fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority|http2.FlagHeadersEndHeaders, 3, []byte{0, 0})
		}, http2.ErrCodeProtocol},
		{"stream faults inside a header block", func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: ok})
			fr.WriteWindowUpdate(3, 0)
		}, http2.ErrCodeProtocol},
		{"CONTINUATION of another stream", func(fr *http2.Framer) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: ok})
			fr.WriteContinuation(5, true, ok)
		}, http2.ErrCodeProtocol},
		{"DATA on stream 0", func(fr *http2.Framer) { fr.WriteData(0, false, []byte("x")) }, http2.ErrCodeProtocol},
		{"CONTINUATION on stream 0", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameContinuation, 0, 0, nil) }, http2.ErrCodeProtocol},
		{"RST_STREAM on stream 0", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FrameRSTStream, 0, 0, make([]byte, 4)) }, http2.ErrCodeProtocol},
		{"SETTINGS acknowledgement with settings", func(fr *http2.Framer) {
			fr.WriteRawFrame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6))
		}, http2.ErrCodeFrameSize},
		{"PRIORITY of 4 bytes", func(fr *http2.Framer) { fr.WriteRawFrame(http2.FramePriority, 0, 3, make([]byte, 4)) }, http2.ErrCodeFrameSize},
		{"flood of PING", flood(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of PING acknowledgements", flood(func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of SETTINGS", flood(func(fr *http2.Framer) { fr.WriteSettings() }), http2.ErrCodeEnhanceYourCalm},
		{"flood of GOAWAY", flood(func(fr *http2.Framer) { fr.WriteGoAway(9, 0, nil) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of empty DATA", func(fr *http2.Framer) {
			headers(fr, 3, false, ok)
			flood(func(fr *http2.Framer) { fr.WriteData(3, false, nil) })(fr)
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of PRIORITY", flood(func(fr *http2.Framer) { fr.WritePriority(3, http2.PriorityParam{StreamDep: 5}) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of unknown frames", flood(func(fr *http2.Framer) { fr.WriteRawFrame(0xbe, 0xff, 3, []byte("unknown")) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of large unknown frames", func(fr *http2.Framer) {
			for range noiseBurst / 16 {
				fr.WriteRawFrame(0xbe, 0, 0, make([]byte, maxReadFrame))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of settings", func(fr *http2.Framer) {
			for range noiseBurst/maxSettings + 2 {
				fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 6*maxSettings))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of WINDOW_UPDATE", flood(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of WINDOW_UPDATE on a stream", flood(func(fr *http2.Framer) { fr.WriteWindowUpdate(3, 1) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of WINDOW_UPDATE on a stream that has ended", flood(func(fr *http2.Framer) { fr.WriteWindowUpdate(1, 1) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of RST_STREAM on a stream that has ended", flood(func(fr *http2.Framer) { fr.WriteRSTStream(1, http2.ErrCodeCancel) }), http2.ErrCodeEnhanceYourCalm},
		{"flood of DATA padded and empty", func(fr *http2.Framer) {
			headers(fr, 3, false, ok)
			flood(func(fr *http2.Framer) { fr.WriteDataPadded(3, false, nil, make([]byte, 9)) })(fr)
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of DATA by the byte", func(fr *http2.Framer) {
			headers(fr, 3, false, ok)
			flood(func(fr *http2.Framer) { fr.WriteData(3, false, []byte("x")) })(fr)
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of answers on a stream that was reset", func(fr *http2.Framer) {
			headers(fr, 3, false, block(":status", "x"))
			flood(func(fr *http2.Framer) { headers(fr, 3, true, ok) })(fr)
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of CONTINUATION on a stream that was reset", func(fr *http2.Framer) {
			headers(fr, 3, false, block(":status", "x"))
			for range noiseBurst / 8 {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3})
				for i := range 8 {
					fr.WriteContinuation(3, i == 7, nil)
				}
			}
		}, http2.ErrCodeEnhanceYourCalm},
		{"flood of interim answers", flood(func(fr *http2.Framer) { headers(fr, 3, false, block(":status", "103")) }), http2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
				p.open(c)
				o := newOutcomes(t)
				o.send(c, 0, 2) // streams 3 and 5
				p.settle()
				p.do(tt.do)
				p.wantGoAway(tt.code)
				<-c.Done()
				var breach *peerError
				if err := c.Err(); !errors.As(err, &breach) && !isGoAway(err) {
					t.Errorf("Err %v", err)
				} else if breach != nil && breach.code != tt.code {
					t.Errorf("Err %v, want code %v", err, tt.code)
				}
				if c := o.counts(); c[Unknown]+c[Delivered] != 2 {
					t.Errorf("outcomes %v", c)
				}
			})
		})
	}
}

func isGoAway(err error) bool {
	var e *GoAwayError
	return errors.As(err, &e)
}

func settings(id http2.SettingID, v uint32) func(*http2.Framer) {
	return func(fr *http2.Framer) { fr.WriteSettings(http2.Setting{ID: id, Val: v}) }
}

func flood(f func(*http2.Framer)) func(*http2.Framer) {
	return func(fr *http2.Framer) {
		for range noiseBurst + 100 {
			f(fr)
		}
	}
}

// A panic of a library over what the peer sent is the end of the connection alone.
func TestPanicEndsTheConnection(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, _ *peer) {
		r := newReader(c)
		r.frames = nil
		_, err := r.parse(http2.FrameHeader{})
		if !errors.Is(err, errPanic) || !errors.Is(r.readError(err), errPanic) {
			t.Errorf("frame: %v", err)
		}
		r.decoder.SetEmitFunc(func(hpack.HeaderField) { panic("a table below zero") })
		err = r.block(http2.FrameHeader{StreamID: 1}, block(":status", "200"), true)
		if !errors.Is(err, errPanic) || !strings.Contains(err.Error(), "below zero") {
			t.Errorf("header block: %v", err)
		}
		r.stop(err)
		<-c.Done()
		if !errors.Is(c.Err(), errPanic) {
			t.Errorf("Err %v", c.Err())
		}
	})
}

// A peer that answers may send as many frames as it takes, however fast: it is
// never told to be calm.
func TestBusyPeerIsNoFlood(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 500}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		id := uint32(3)
		const rounds, each = 20, 500
		for round := range rounds {
			o.send(c, round*each, each)
			p.settle()
			p.do(func(fr *http2.Framer) {
				for range each {
					fr.WriteWindowUpdate(0, 25)
					fr.WriteWindowUpdate(id, 25)
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "103"), EndHeaders: true})
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "400")})
					fr.WriteContinuation(id, true, nil)
					fr.WriteDataPadded(id, false, []byte(`{"reason":`), make([]byte, 3))
					fr.WriteData(id, false, []byte(`"PayloadEmpty"}`))
					fr.WriteData(id, true, nil)
					id += 2
				}
			})
		}
		o.want(map[Class]int{Rejected: rounds * each})

		// Window by the byte is slow, but it is legal.
		n := testPush()
		n.Payload = bytes.Repeat([]byte("x"), 65535+4000)
		c.Send(n, o.done(rounds*each))
		p.settle()
		for range 4025 { // p.open took 25 of the connection's
			p.do(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1); fr.WriteWindowUpdate(id, 1) })
		}
		wantBody(t, p, id, n.Payload)
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

// A peer that makes answers necessary and does not read them must not fill the
// memory.
func TestControlFramesAreBounded(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		c.mu.Lock()
		for range maxControl / 17 { // PING frames; nothing lets the writer go
			c.control(c.frames.WritePing(true, [8]byte{}))
		}
		if c.ended {
			t.Error("ended too early")
		}
		for range 2 {
			c.control(c.frames.WritePing(true, [8]byte{}))
		}
		if !c.ended {
			t.Error("not ended")
		}
		c.unlock()
		<-c.Done()
		p.wantGoAway(http2.ErrCodeEnhanceYourCalm)
	})
}

func TestPeerControlFrames(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.do(func(fr *http2.Framer) {
			fr.WritePing(false, [8]byte{1})
			fr.WriteSettings()
			fr.WriteSettings(http2.Setting{ID: 0xff, Val: 1})
			fr.WritePing(false, [8]byte{2})
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.pongs != 2 || p.acks != 3 { // one for the first SETTINGS
			t.Errorf("%d PINGs and %d SETTINGS acknowledged, want 2 and 3", p.pongs, p.acks)
		}
	})
}

// What was read is given back to the peer's window, also of streams that are gone.
func TestReceiveWindowIsRenewed(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 100}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 40)
		p.settle()
		p.do(func(fr *http2.Framer) {
			for i := range uint32(40) {
				id := 3 + 2*i
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "400"), EndHeaders: true})
				fr.WriteDataPadded(id, false, make([]byte, 15<<10), make([]byte, 100))
				fr.WriteData(id, true, nil)
			}
		})
		o.want(map[Class]int{Rejected: 40})
		p.mu.Lock()
		defer p.mu.Unlock()
		if got := p.updates - (connWindow - 65535); got < connWindow/2 || got > 40*(15<<10+101) {
			t.Errorf("window renewed by %d", got)
		}
	})
}
