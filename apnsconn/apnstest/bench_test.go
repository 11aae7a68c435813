package apnstest_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"propeller/apnsconn/apnstest"
)

// load writes pushes in large batches and counts the answers, with as little
// work as can be: the server is what is measured.
type load struct {
	c      *client
	buf    bytes.Buffer
	fr     *http2.Framer
	stream uint32
}

func newLoad(b *testing.B, o apnstest.Options) *load {
	srv := newServer(b, o)
	c, _ := dial(b, srv)
	c.conn.SetDeadline(time.Time{})
	l := &load{c: c, stream: 1}
	l.fr = http2.NewFramer(&l.buf, nil)
	return l
}

// encode puts n pushes of 113 bytes in l.buf.
func (l *load) encode(n int) {
	payload := bytes.Repeat([]byte("x"), 113)
	l.buf.Reset()
	for range n {
		c := l.c
		c.hbuf.Reset()
		field := func(name, value string, sensitive bool) {
			c.enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: sensitive})
		}
		field(":method", "POST", false)
		field(":scheme", "https", false)
		field(":path", fmt.Sprintf("/3/device/%064x", l.stream), true)
		field(":authority", "api.push.apple.com", false)
		field("apns-topic", topic, false)
		field("apns-push-type", "alert", false)
		field("apns-id", fmt.Sprintf("123e4567-e89b-12d3-a456-%012x", l.stream), true)
		l.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: l.stream, BlockFragment: c.hbuf.Bytes(), EndHeaders: true})
		l.fr.WriteData(l.stream, true, payload)
		l.stream += 2
	}
}

func (l *load) write(b *testing.B, n int) {
	l.encode(n)
	if _, err := l.c.conn.Write(l.buf.Bytes()); err != nil {
		b.Error(err)
	}
}

// read counts n HEADERS frames.
func (l *load) read(b *testing.B, r io.Reader, n int) {
	var head [9]byte
	skip := make([]byte, 1<<15)
	for n > 0 {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			b.Error(err)
			return
		}
		if head[3] == byte(http2.FrameHeaders) {
			n--
		}
		size := binary.BigEndian.Uint32(head[:]) >> 8
		if _, err := io.ReadFull(r, skip[:size]); err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkHappyPath measures a push and its answer on one connection with
// 400 streams open, the client's own cost included (see BenchmarkClient for
// that alone).
func BenchmarkHappyPath(b *testing.B) {
	const batch = 400
	for _, bm := range []struct {
		name string
		opt  apnstest.Options
	}{
		{"count", apnstest.Options{Record: -1, ConnWindow: 1 << 20}},
		{"record", apnstest.Options{ConnWindow: 1 << 20}},
		{"delay", apnstest.Options{Record: -1, ConnWindow: 1 << 20, Delay: 1}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			l := newLoad(b, bm.opt)
			r := bufio.NewReaderSize(l.c.conn, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				l.write(b, batch)
				l.read(b, r, batch)
				if l.stream > 1<<30 {
					b.Fatal("out of streams")
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "pushes/s")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/push")
		})
	}
}

// BenchmarkClient measures the writing side of BenchmarkHappyPath alone.
func BenchmarkClient(b *testing.B) {
	const batch = 400
	l := newLoad(b, apnstest.Options{})
	b.ReportAllocs()
	for b.Loop() {
		l.encode(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/push")
}
