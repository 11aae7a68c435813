package apnsconn

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// What the peer may not do, over TLS: each breach ends the connection or the
// stream, whichever is at fault, with the right code, and the push with the
// right class. breach_test.go and frames_test.go have the finer points, without
// a network.
func TestMisbehaviour(t *testing.T) {
	t.Parallel()
	ok := block(":status", "200")
	headers := func(fr *http2.Framer, stream uint32, end bool, b []byte) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b, EndHeaders: true, EndStream: end})
	}
	many := func(f func(*http2.Framer)) func(*http2.Framer, uint32) {
		return func(fr *http2.Framer, _ uint32) {
			for range 3 * noiseBurst { // more than a slow machine lets seep away meanwhile
				f(fr)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		do     func(fr *http2.Framer, stream uint32)
		conn   http2.ErrCode // ends the connection with it; 0: does not
		stream http2.ErrCode // or the stream
		class  Class
	}{
		{"HEADERS on a stream never opened", func(fr *http2.Framer, s uint32) { headers(fr, s+100, true, ok) },
			http2.ErrCodeProtocol, 0, Unknown},
		{"DATA after END_STREAM", func(fr *http2.Framer, s uint32) { headers(fr, s, true, ok); fr.WriteData(s, false, []byte("x")) },
			http2.ErrCodeStreamClosed, 0, Delivered},
		{"HEADERS after END_STREAM", func(fr *http2.Framer, s uint32) { headers(fr, s, true, ok); headers(fr, s, true, ok) },
			http2.ErrCodeStreamClosed, 0, Delivered},
		{"frame too large", func(fr *http2.Framer, s uint32) { fr.WriteRawFrame(http2.FrameData, 0, s, make([]byte, 16<<10+1)) },
			http2.ErrCodeFrameSize, 0, Unknown},
		{"unknown frame too large", func(fr *http2.Framer, s uint32) { fr.WriteRawFrame(0xbe, 0, s, make([]byte, 1<<20)) },
			http2.ErrCodeFrameSize, 0, Unknown},
		{"HPACK index out of range", func(fr *http2.Framer, s uint32) { headers(fr, s, true, []byte{0xff, 0xff, 0x03}) },
			http2.ErrCodeCompression, 0, Unknown},
		{"HPACK cut short", func(fr *http2.Framer, s uint32) { headers(fr, s, true, []byte{0x40, 0x05, 'a'}) },
			http2.ErrCodeCompression, 0, Unknown},
		{"window of the connection overflows", func(fr *http2.Framer, _ uint32) { fr.WriteWindowUpdate(0, maxWindow) },
			http2.ErrCodeFlowControl, 0, Unknown},
		{"window of the stream overflows", func(fr *http2.Framer, s uint32) { fr.WriteWindowUpdate(s, maxWindow) },
			0, http2.ErrCodeFlowControl, Unknown},
		{"INITIAL_WINDOW_SIZE too large", func(fr *http2.Framer, _ uint32) { settings(http2.SettingInitialWindowSize, 1<<31)(fr) },
			http2.ErrCodeFlowControl, 0, Unknown},
		{"flood of SETTINGS", many(func(fr *http2.Framer) { fr.WriteSettings() }),
			http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"flood of PING", many(func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) }),
			http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"flood of WINDOW_UPDATE", many(func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1) }),
			http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"flood of PRIORITY", many(func(fr *http2.Framer) { fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }),
			http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"flood of unknown frames", many(func(fr *http2.Framer) { fr.WriteRawFrame(0xbe, 0, 0, nil) }),
			http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"flood of DATA padded and empty", func(fr *http2.Framer, s uint32) {
			headers(fr, s, false, ok)
			many(func(fr *http2.Framer) { fr.WriteDataPadded(s, false, nil, make([]byte, 2)) })(fr, s)
		}, http2.ErrCodeEnhanceYourCalm, 0, Delivered},
		{"endless CONTINUATION", func(fr *http2.Framer, s uint32) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, BlockFragment: ok})
			for range 1000 {
				fr.WriteContinuation(s, false, nil)
			}
		}, http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"endless header list", func(fr *http2.Framer, s uint32) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, BlockFragment: ok})
			for range 1000 {
				fr.WriteContinuation(s, false, block("name", strings.Repeat("\x00", 1000)))
			}
		}, http2.ErrCodeEnhanceYourCalm, 0, Unknown},
		{"header list too long", func(fr *http2.Framer, s uint32) {
			headers(fr, s, true, block(":status", "200", "name", strings.Repeat("a", maxHeaderList)))
		}, 0, http2.ErrCodeProtocol, Unknown},
		{"body without end", func(fr *http2.Framer, s uint32) {
			headers(fr, s, false, block(":status", "400"))
			for range 4 {
				fr.WriteData(s, false, make([]byte, 16<<10-1))
			}
			fr.WriteData(s, false, make([]byte, 3))
		}, 0, http2.ErrCodeCancel, Unavailable},
		{"body beyond the window", func(fr *http2.Framer, s uint32) {
			headers(fr, s, false, block(":status", "400"))
			for range 10 {
				fr.WriteData(s, false, make([]byte, 16<<10))
			}
		}, 0, http2.ErrCodeFlowControl, Unavailable},
		{"body of another length", func(fr *http2.Framer, s uint32) {
			headers(fr, s, false, block(":status", "400", "content-length", "5"))
			fr.WriteData(s, true, []byte("four"))
		}, 0, http2.ErrCodeProtocol, Unavailable},
		{"body first", func(fr *http2.Framer, s uint32) { fr.WriteData(s, true, []byte("{}")) },
			0, http2.ErrCodeProtocol, Unknown},
		{"PUSH_PROMISE", func(fr *http2.Framer, s uint32) {
			fr.WritePushPromise(http2.PushPromiseParam{StreamID: s, PromiseID: 2, BlockFragment: ok, EndHeaders: true})
		}, http2.ErrCodeProtocol, 0, Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServerKnowing(t, apnstest.Options{AllowAnonymous: true, Script: apnstest.Nth(2, apnstest.Answer{Raw: tt.do})}, "SETTINGS acknowledged that were not sent")
			c := mustDial(t, s, Config{})
			if o := c.Push(within(t), testPush()); o.Class != Delivered {
				t.Fatal(o)
			}
			o := c.Push(within(t), testPush())
			if o.Class != tt.class {
				t.Errorf("outcome %+v, want %v", o, tt.class)
			}
			var stream *streamError
			if tt.stream != 0 && (!errors.As(o.Err, &stream) || stream.Code != tt.stream || stream.Remote) {
				t.Errorf("Err %v, want code %v", o.Err, tt.stream)
			}
			if tt.conn == 0 {
				if o := c.Push(within(t), testPush()); o.Class != Delivered || !c.Usable() {
					t.Errorf("next push: %+v", o)
				}
				return
			}
			<-c.Done()
			var breach *peerError
			if err := c.Err(); !errors.As(err, &breach) || breach.code != tt.conn {
				t.Errorf("Err %v, want code %v", err, tt.conn)
			}
		})
	}
}
