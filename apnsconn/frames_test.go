package apnsconn

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestRequest(t *testing.T) {
	t.Parallel()
	exp := int64(1700000000)
	n := &Notification{
		Token: "ABCDEF0123456789", Topic: "com.example.app.voip", PushType: "voip",
		ID: "123e4567-e89b-12d3-a456-4266554400a0", CollapseID: "a b", Priority: 10, Expiration: &exp,
		Payload: []byte(`{"aps":{}}`),
	}
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		c.Send(n, o.done(0))
		p.settle()
		s := p.seen(1)
		var got []string
		for _, f := range s.fields {
			got = append(got, f.Name+": "+f.Value)
		}
		want := []string{
			":authority: api.push.apple.com",
			":method: POST",
			":scheme: https",
			":path: /3/device/abcdef0123456789",
			"apns-topic: com.example.app.voip",
			"apns-push-type: voip",
			"apns-priority: 10",
			"apns-id: 123e4567-e89b-12d3-a456-4266554400a0",
			"apns-expiration: 1700000000",
			"apns-collapse-id: a b",
		}
		if !slices.Equal(got, want) {
			t.Errorf("headers\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if string(s.body) != `{"aps":{}}` || !s.ended {
			t.Errorf("body %q, ended %v", s.body, s.ended)
		}
		for _, f := range s.fields {
			if secret := f.Name == ":path"; f.Sensitive != secret && (f.Name == ":path" || f.Name == ":method") {
				t.Errorf("%s: never indexed is %v", f.Name, f.Sensitive)
			}
		}
		p.answer("200", 1)
		o.want(map[Class]int{Delivered: 1})
	})
}

func TestRequestWithoutOptions(t *testing.T) {
	t.Parallel()
	zero := int64(0)
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		c.Send(&Notification{Token: "aa", Expiration: &zero}, o.done(0))
		p.settle()
		s := p.seen(1)
		if n := len(s.fields); n != 5 || s.fields[4].Name != "apns-expiration" || s.fields[4].Value != "0" {
			t.Errorf("fields %v, want four pseudo-headers and apns-expiration 0", s.fields)
		}
		if len(s.frames) != 1 || !s.ended {
			t.Errorf("frames %v, want one HEADERS that ends the stream", s.frames)
		}
	})
}

func TestRefusesUnfitHeaders(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		for key, n := range map[string]*Notification{
			"token":       {Token: "aa/../bb"},
			"topic":       {Token: "aa", Topic: "a\r\nb"},
			"push_type":   {Token: "aa", PushType: "\x00"},
			"id":          {Token: "aa", ID: "é"},
			"collapse_id": {Token: "aa", CollapseID: strings.Repeat("x", 5000)},
		} {
			var field *FieldError
			o := c.Push(t.Context(), n)
			if o.Class != Rejected || !errors.As(o.Err, &field) || field.Key != key {
				t.Errorf("%s: %+v", key, o)
			}
		}
		if n := p.opened(); n != 0 {
			t.Errorf("%d streams opened", n)
		}
	})
}

func TestHeaderBlockSize(t *testing.T) {
	t.Parallel()
	h := newHeaderEncoder("api.push.apple.com")
	dec := hpack.NewDecoder(4096, nil)
	ids := []string{"123e4567-e89b-12d3-a456-4266554400a0", "9f0c7ee1-3c53-4b5e-9d36-0f4a8e7c2b11", "00000000-aaaa-4bbb-8ccc-dddddddddddd"}
	exp := int64(1700000000)
	total := 0
	const pushes = 500
	for i := range pushes {
		exp++ // never the same
		n := testPush()
		n.ID, n.Priority, n.Expiration = ids[i%len(ids)], 10, &exp
		b := h.encode(n)
		if _, err := dec.DecodeFull(b); err != nil {
			t.Fatal(err)
		}
		total += len(b)
	}
	// Path 57, id 29, expiration 10, six single bytes; and the first block.
	if mean := total / pushes; mean > 104 {
		t.Errorf("%d bytes per header block", mean)
	}
}

// The table's only entry for the name apns-id is evicted now and then: the name
// must come back.
func TestVaryingNameSurvivesEviction(t *testing.T) {
	t.Parallel()
	h := newHeaderEncoder("api.push.apple.com")
	dec := hpack.NewDecoder(4096, nil)
	names := 0
	for i := range 1000 {
		n := testPush()
		n.ID = "123e4567-e89b-12d3-a456-" + strings.Repeat(string(rune('a'+i%6)), 12)
		n.Topic = "com.example.app" + strings.Repeat("x", i%200) // flushes the table
		b := h.encode(n)
		if bytes.Contains(b, hpack.AppendHuffmanString(nil, "apns-id")) {
			names++
		}
		fields, err := dec.DecodeFull(b)
		if err != nil || fields[len(fields)-1].Value != n.ID {
			t.Fatal(fields, err)
		}
	}
	if names < 2 || names > 100 {
		t.Errorf("name spelled out in %d of 1000 blocks", names)
	}
}

func TestHeaderTableSize(t *testing.T) {
	t.Parallel()
	for _, size := range []uint32{0, 64, 100, 4096, 1 << 30} {
		bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingHeaderTableSize, Val: size}}, func(t *testing.T, c *Conn, p *peer) {
			p.open(c)
			o := newOutcomes(t)
			o.send(c, 0, 20) // the peer's decoder complains if the table is not kept to
			p.settle()
			if n := p.opened(); n != 21 {
				t.Errorf("table size %d: %d streams", size, n)
			}
		})
	}
}

func TestHeaderTableSizeChangesTwice(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		for i, size := range []uint32{100, 4096, 4096, 200, 100, 300, 0, 4096} {
			p.do(settings(http2.SettingHeaderTableSize, size))
			if i%2 == 1 {
				o.send(c, 2*i, 2)
				p.settle()
			}
		}
		if n := p.opened(); n != 9 {
			t.Errorf("%d streams, want 9", n)
		}
		for _, id := range p.order {
			if n := len(p.seen(id).fields); n != 6 {
				t.Errorf("stream %d: %d fields", id, n)
			}
		}
	})
}

func TestHeaderListTooLongForPeer(t *testing.T) {
	t.Parallel()
	bubbleWith(t, Config{}, []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: 100}}, func(t *testing.T, c *Conn, p *peer) {
		o := c.Push(t.Context(), testPush())
		if o.Class != NotSent || p.opened() != 0 {
			t.Errorf("%+v, %d streams", o, p.opened())
		}
	})
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	headers := func(fr *http2.Framer, end bool, fields ...string) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
	}
	for _, tt := range []struct {
		name   string
		answer func(fr *http2.Framer)
		want   Outcome
	}{
		{"200", func(fr *http2.Framer) { headers(fr, true, ":status", "200", "apns-id", "X-1") },
			Outcome{Class: Delivered, Status: 200, APNsID: "X-1"}},
		{"200 with an empty DATA", func(fr *http2.Framer) { headers(fr, false, ":status", "200"); fr.WriteData(1, true, nil) },
			Outcome{Class: Delivered, Status: 200}},
		{"reason", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400", "content-type", "application/json")
			fr.WriteData(1, true, []byte(`{"reason":"BadDeviceToken"}`))
		}, Outcome{Class: Token, Status: 400, Reason: "BadDeviceToken"}},
		{"body in pieces, padded", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400")
			fr.WriteData(1, false, []byte(`{"reason":`))
			fr.WriteDataPadded(1, false, []byte(`"BadTopic`), make([]byte, 200))
			fr.WriteDataPadded(1, true, []byte(`"}`), []byte{})
		}, Outcome{Class: Rejected, Status: 400, Reason: "BadTopic"}},
		{"retry-after", func(fr *http2.Framer) { headers(fr, true, ":status", "503", "retry-after", "7") },
			Outcome{Class: Unavailable, Status: 503, RetryAfter: 7e9}},
		{"retry-after nonsense", func(fr *http2.Framer) { headers(fr, true, ":status", "503", "retry-after", "-7") },
			Outcome{Class: Unavailable, Status: 503}},
		{"1xx before", func(fr *http2.Framer) {
			headers(fr, false, ":status", "103", "apns-id", "no")
			headers(fr, false, ":status", "100")
			headers(fr, true, ":status", "200")
		}, Outcome{Class: Delivered, Status: 200}},
		{"trailers", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400")
			fr.WriteData(1, false, []byte(`{"reason":"BadTopic"}`))
			headers(fr, true, "x-trailer", "1")
		}, Outcome{Class: Rejected, Status: 400, Reason: "BadTopic"}},
		{"continuations and padding", func(fr *http2.Framer) {
			b := block(":status", "200", "apns-id", "X-2")
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:2], EndStream: true, PadLength: 9})
			fr.WriteContinuation(1, false, b[2:4])
			fr.WriteContinuation(1, false, nil)
			fr.WriteContinuation(1, true, b[4:])
		}, Outcome{Class: Delivered, Status: 200, APNsID: "X-2"}},
		{"unknown frames, PRIORITY and others between", func(fr *http2.Framer) {
			fr.WriteRawFrame(0xbe, 0xff, 1, []byte("hello"))
			fr.WriteRawFrame(0xbe, 0xff, 77, nil)
			fr.WritePriority(1, http2.PriorityParam{Weight: 3})
			fr.WriteWindowUpdate(1, 1)
			headers(fr, true, ":status", "200")
			fr.WriteWindowUpdate(1, 5) // the stream has ended: may still come
			fr.WriteRSTStream(1, http2.ErrCodeNo)
		}, Outcome{Class: Delivered, Status: 200}},
		{"content-length", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400", "content-length", "21", "content-length", "21")
			fr.WriteDataPadded(1, false, []byte(`{"reason":`), make([]byte, 9))
			fr.WriteData(1, true, []byte(`"BadTopic"}`))
		}, Outcome{Class: Rejected, Status: 400, Reason: "BadTopic"}},
		{"content-length 0", func(fr *http2.Framer) { headers(fr, true, ":status", "200", "content-length", "0") },
			Outcome{Class: Delivered, Status: 200}},
		{"body longer than is kept", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400")
			for range 3 {
				fr.WriteData(1, false, make([]byte, 16<<10))
			}
			fr.WriteData(1, true, []byte("x"))
		}, Outcome{Class: Rejected, Status: 400}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
				o := newOutcomes(t)
				o.send(c, 0, 1)
				p.settle()
				p.do(tt.answer)
				if got := o.get(0); got != tt.want {
					t.Errorf("outcome %+v, want %+v", got, tt.want)
				}
				p.wantResets(nil)
				if !c.Usable() {
					t.Errorf("connection ended: %v", c.Err())
				}
			})
		})
	}
}

// Faults of the peer on one stream end that stream alone.
func TestStreamFaults(t *testing.T) {
	t.Parallel()
	headers := func(fr *http2.Framer, end bool, fields ...string) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
	}
	for _, tt := range []struct {
		name  string
		fault func(fr *http2.Framer)
		code  http2.ErrCode
		class Class
	}{
		{"no status", func(fr *http2.Framer) { headers(fr, true, "apns-id", "1") }, http2.ErrCodeProtocol, Unknown},
		{"two statuses", func(fr *http2.Framer) { headers(fr, true, ":status", "200", ":status", "400") }, http2.ErrCodeProtocol, Unknown},
		{"status of letters", func(fr *http2.Framer) { headers(fr, true, ":status", "abc") }, http2.ErrCodeProtocol, Unknown},
		{"status of one digit", func(fr *http2.Framer) { headers(fr, true, ":status", "2") }, http2.ErrCodeProtocol, Unknown},
		{"status 101", func(fr *http2.Framer) { headers(fr, true, ":status", "101") }, http2.ErrCodeProtocol, Unknown},
		{"request pseudo-header", func(fr *http2.Framer) { headers(fr, true, ":status", "200", ":path", "/") }, http2.ErrCodeProtocol, Unknown},
		{"pseudo-header late", func(fr *http2.Framer) { headers(fr, true, "a", "b", ":status", "200") }, http2.ErrCodeProtocol, Unknown},
		{"upper case name", func(fr *http2.Framer) { headers(fr, true, ":status", "200", "Apns", "1") }, http2.ErrCodeProtocol, Unknown},
		{"1xx ends the stream", func(fr *http2.Framer) { headers(fr, true, ":status", "100") }, http2.ErrCodeProtocol, Unknown},
		{"header list too long", func(fr *http2.Framer) { headers(fr, true, ":status", "200", "a", strings.Repeat("b", maxHeaderList)) }, http2.ErrCodeProtocol, Unknown},
		{"body first", func(fr *http2.Framer) { fr.WriteData(3, true, []byte("{}")) }, http2.ErrCodeProtocol, Unknown},
		{"status in trailers", func(fr *http2.Framer) {
			headers(fr, false, ":status", "200")
			headers(fr, true, ":status", "200")
		}, http2.ErrCodeProtocol, Delivered},
		{"trailers without end", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400")
			headers(fr, false, "x", "y")
		}, http2.ErrCodeProtocol, Unavailable},
		{"body without end", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400")
			for range 3 {
				fr.WriteData(3, false, make([]byte, 16<<10))
			}
			fr.WriteData(3, false, make([]byte, 16<<10-1))
		}, http2.ErrCodeCancel, Unavailable},
		{"body beyond the window", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400")
			for range 5 {
				fr.WriteData(3, false, make([]byte, 16<<10))
			}
		}, http2.ErrCodeFlowControl, Unavailable},
		{"content-length longer than the body", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400", "content-length", "27")
			fr.WriteData(3, true, []byte(`{"reason":"BadTopic"}`))
		}, http2.ErrCodeProtocol, Rejected},
		{"content-length shorter than the body", func(fr *http2.Framer) {
			headers(fr, false, ":status", "400", "content-length", "3")
			fr.WriteData(3, false, []byte("abc"))
			fr.WriteData(3, false, []byte("d"))
		}, http2.ErrCodeProtocol, Unavailable},
		{"content-length and no body", func(fr *http2.Framer) { headers(fr, true, ":status", "200", "content-length", "1") }, http2.ErrCodeProtocol, Delivered},
		{"content-length and trailers instead of a body", func(fr *http2.Framer) {
			headers(fr, false, ":status", "200", "content-length", "1")
			headers(fr, true, "x", "y")
		}, http2.ErrCodeProtocol, Delivered},
		{"content-length negative", func(fr *http2.Framer) { headers(fr, true, ":status", "200", "content-length", "-1") }, http2.ErrCodeProtocol, Unknown},
		{"two content-lengths", func(fr *http2.Framer) {
			headers(fr, false, ":status", "200", "content-length", "1", "content-length", "2")
		}, http2.ErrCodeProtocol, Unknown},
		{"window overflow", func(fr *http2.Framer) { fr.WriteWindowUpdate(3, maxWindow) }, http2.ErrCodeFlowControl, Unknown},
		{"window update of 0", func(fr *http2.Framer) { fr.WriteWindowUpdate(3, 0) }, http2.ErrCodeProtocol, Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
				p.open(c)
				o := newOutcomes(t)
				o.send(c, 0, 2) // streams 3 and 5
				p.settle()
				p.do(tt.fault)
				if got := o.get(0); got.Class != tt.class {
					t.Errorf("outcome %+v, want class %v", got, tt.class)
				}
				p.wantResets(map[uint32]http2.ErrCode{3: tt.code})
				// What the peer sends before it hears of the reset is ignored,
				// and the other stream is not concerned.
				p.do(func(fr *http2.Framer) {
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block(":status", "200"), EndHeaders: true})
					fr.WriteData(3, true, []byte("late"))
				})
				p.answer("200", 5)
				want := map[Class]int{tt.class: 1}
				want[Delivered]++
				o.want(want)
				if !c.Usable() {
					t.Errorf("connection ended: %v", c.Err())
				}
			})
		})
	}
}
