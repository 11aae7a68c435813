package apnsconn

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// The benchmarks measure the connection beside a server that costs as little
// as a server over TLS can: it decodes nothing and answers 200 to every stream.
// What they report is the sum of both; the server's share is in BenchmarkSend's
// cpu figures too.

func BenchmarkSend(b *testing.B) {
	for _, streams := range []int{1, 100, 900} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			addr, pool := leanServer(b)
			c, err := Dial(context.Background(), Config{Addr: addr, RootCAs: pool, InFlight: streams})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			n := benchNotification()
			if o := c.Push(context.Background(), n); o.Class != Delivered {
				b.Fatal(o)
			}
			b.ReportAllocs()
			b.ResetTimer()
			sendAll(b, c, n, streams, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
		})
	}
}

// sendAll sends total pushes, keeping so many in flight: each callback sends
// the next.
func sendAll(b testing.TB, c *Conn, n *Notification, streams, total int) {
	var sent, ended atomic.Int64
	finished := make(chan struct{})
	var done func(Outcome)
	done = func(o Outcome) {
		if o.Class != Delivered {
			b.Error(o)
		}
		if ended.Add(1) == int64(total) {
			close(finished)
			return
		}
		if sent.Add(1) <= int64(total) {
			c.Send(n, done)
		}
	}
	for range min(streams, total) {
		if sent.Add(1) <= int64(total) {
			c.Send(n, done)
		}
	}
	<-finished
}

func benchNotification() *Notification {
	return &Notification{
		Token:    "740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad",
		Topic:    "com.example.app",
		PushType: "alert",
		ID:       "123e4567-e89b-12d3-a456-4266554400a0",
		Priority: 10,
		Payload:  []byte(`{"aps":{"alert":{"title":"Title of the push","body":"Body of the push, which is a bit longer"},"badge":3}}`),
	}
}

// leanServer serves any number of connections until the test ends.
func leanServer(tb testing.TB) (addr string, pool *x509.CertPool) {
	cert, pool := selfSigned(tb)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates:                []tls.Certificate{cert},
		NextProtos:                  []string{"h2"},
		DynamicRecordSizingDisabled: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	gone := make(chan struct{})
	tb.Cleanup(func() { l.Close(); <-gone })
	go func() {
		defer close(gone)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			leanServe(nc) // one after the other is enough
		}
	}()
	return l.Addr().String(), pool
}

func leanServe(nc net.Conn) {
	defer nc.Close()
	var out frameBuffer
	fr := http2.NewFramer(&out, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
	fr.WriteWindowUpdate(0, maxWindow-65535)
	fr.WriteSettingsAck()
	in := bufio.NewReaderSize(nc, 64<<10)
	if _, err := in.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	answer := []byte{0, 0, 1, byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream), 0, 0, 0, 0, 0x88}
	for {
		if in.Buffered() < 9 && len(out.b) > 0 {
			if _, err := nc.Write(out.b); err != nil {
				return
			}
			out.b = out.b[:0]
		}
		h, err := in.Peek(9)
		if err != nil {
			return
		}
		length := int(binary.BigEndian.Uint32(h) >> 8)
		stream := binary.BigEndian.Uint32(h[5:])
		if http2.FrameType(h[3]) == http2.FrameData && http2.Flags(h[4]).Has(http2.FlagDataEndStream) {
			binary.BigEndian.PutUint32(answer[5:], stream)
			out.b = append(out.b, answer...)
		}
		if _, err := in.Discard(9 + length); err != nil {
			return
		}
	}
}

func selfSigned(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "lean server"},
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// BenchmarkHeaderBlock reports, beside the time, the bytes of a header block
// when token and id are others each time, as they are. In these blocks 57 bytes
// are the path and 29 the id, which no table can shorten.
func BenchmarkHeaderBlock(b *testing.B) {
	h := newHeaderEncoder("api.push.apple.com")
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	some := make([]Notification, 1024)
	for i := range some {
		some[i] = *benchNotification()
		some[i].Token = fmt.Sprintf("%016x%016x%016x%016x", rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64())
		some[i].ID = fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", rng.Uint32(), rng.Uint32N(1<<16), rng.Uint32N(1<<12), 0x8000|rng.Uint32N(1<<14), rng.Uint64N(1<<48))
	}
	b.ReportAllocs()
	total, i := 0, 0
	for b.Loop() {
		total += len(h.encode(&some[i%len(some)]))
		i++
	}
	b.ReportMetric(float64(total)/float64(i), "B/block")
}

// TestAllocationsPerPush keeps the goal of docs/benchmarks.md: at most 6
// allocations per push, the server's (none) included. It is not parallel, since
// it counts those of the whole process.
func TestAllocationsPerPush(t *testing.T) {
	addr, pool := leanServer(t)
	c, err := Dial(t.Context(), Config{Addr: addr, RootCAs: pool, InFlight: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := benchNotification()
	if o := c.Push(within(t), n); o.Class != Delivered {
		t.Fatal(o)
	}
	const pushes = 20_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sendAll(t, c, n, 100, pushes)
	runtime.ReadMemStats(&after)
	allocs := float64(after.Mallocs-before.Mallocs) / pushes
	bytes := float64(after.TotalAlloc-before.TotalAlloc) / pushes
	t.Logf("%.2f allocations, %.0f bytes per push", allocs, bytes)
	if allocs > 6 {
		t.Errorf("%.2f allocations per push, want at most 6", allocs)
	}
}
