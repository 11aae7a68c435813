package apnsconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// These tests run over real TLS and TCP, against the stand-in for APNs.

func startServer(t testing.TB, o apnstest.Options) *apnstest.Server {
	t.Helper()
	return startServerKnowing(t, o, "")
}

// startServerKnowing is startServer for a test that makes the server find one
// violation which is none: it does not count frames that the test writes raw.
func startServerKnowing(t testing.TB, o apnstest.Options, known string) *apnstest.Server {
	t.Helper()
	s := apnstest.NewServer(o)
	t.Cleanup(func() {
		v := slices.DeleteFunc(s.Violations(), func(v string) bool { return known != "" && strings.Contains(v, known) })
		if len(v) > 0 {
			t.Errorf("violations of HTTP/2: %q", v)
		}
		s.Close()
	})
	return s
}

func mustDial(t testing.TB, s *apnstest.Server, cfg Config) *Conn {
	t.Helper()
	cfg.Addr, cfg.RootCAs = s.Addr, s.CertPool()
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPushOverTLS(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	cert := s.ClientCert("com.example.app")
	c := mustDial(t, s, Config{Certificate: &cert})
	exp := time.Now().Add(time.Hour).Unix()
	n := testPush()
	n.ID, n.Priority, n.Expiration, n.CollapseID = "123e4567-e89b-12d3-a456-4266554400a0", 5, &exp, "one"
	for i := range 3 { // with the header table empty, and not
		o := c.Push(within(t), n)
		if o.Class != Delivered || o.Status != 200 || o.APNsID != n.ID || o.Err != nil {
			t.Fatalf("push %d: %+v", i, o)
		}
	}
	want := map[string]string{
		":method": "POST", ":scheme": "https", ":authority": s.Addr, ":path": "/3/device/" + testToken,
		"apns-topic": "com.example.app", "apns-push-type": "alert", "apns-id": n.ID, "apns-priority": "5",
		"apns-expiration": fmt.Sprint(exp), "apns-collapse-id": "one",
	}
	for _, r := range s.Requests() {
		if got := r.Header.Map(); len(r.Header) != len(want) || !mapsEqual(got, want) {
			t.Errorf("headers %v, want %v", got, want)
		}
		if !bytes.Equal(r.Body, n.Payload) || r.ClientCert == nil {
			t.Errorf("body %q, certificate %v", r.Body, r.ClientCert != nil)
		}
	}
	if s.Dials() != 1 {
		t.Errorf("%d dials", s.Dials())
	}
}

func mapsEqual(a, b map[string]string) bool {
	for k, v := range b {
		if a[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

func TestManyPushes(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true})
	c := mustDial(t, s, Config{InFlight: 700})
	const senders, each = 8, 500
	o := newOutcomes(t)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 700)
	for g := range senders {
		wg.Go(func() {
			for i := range each {
				slots <- struct{}{}
				id := g*each + i
				n := testPush()
				n.Token = fmt.Sprintf("%064x", id)
				done := o.done(id)
				wg.Add(1)
				c.Send(n, func(out Outcome) { done(out); <-slots; wg.Done() })
			}
		})
	}
	wg.Wait()
	o.want(map[Class]int{Delivered: senders * each})
	tokens := s.Tokens()
	if n := len(slices.Compact(tokens)); n != senders*each || s.Count() != senders*each {
		t.Errorf("%d different tokens in %d requests", n, s.Count())
	}
}

// A callback may send, and each does here, a thousand times.
func TestSendFromCallback(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true})
	c := mustDial(t, s, Config{InFlight: 10})
	const chains, length = 10, 300
	var wg sync.WaitGroup
	wg.Add(chains)
	var bad atomic.Int64
	for range chains {
		left := length
		var next func(Outcome)
		next = func(o Outcome) {
			if o.Class != Delivered {
				bad.Add(1)
			}
			if left--; left == 0 {
				wg.Done()
				return
			}
			c.Send(testPush(), next)
		}
		c.Send(testPush(), next)
	}
	wg.Wait()
	if bad.Load() != 0 || s.Count() != chains*length {
		t.Errorf("%d bad outcomes, %d requests", bad.Load(), s.Count())
	}
}

// The connection is lost with pushes in flight: what the server has seen ended
// as Unknown, never as NotSent.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*apnstest.Conn){
		"RST":      (*apnstest.Conn).CloseAbruptly,
		"FIN":      (*apnstest.Conn).CloseTCP,
		"TLS":      (*apnstest.Conn).CloseTLS,
		"GOAWAY 0": func(c *apnstest.Conn) { c.GoAway(0, http2.ErrCodeNo, nil); c.CloseTLS() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, apnstest.Options{AllowAnonymous: true, Settings: apnstest.Settings{MaxConcurrentStreams: new(uint32(40))}})
			c := mustDial(t, s, Config{InFlight: 100})
			if o := c.Push(within(t), testPush()); o.Class != Delivered {
				t.Fatal(o)
			}
			s.SetScript(apnstest.Always(apnstest.Answer{Silence: true}))
			o := newOutcomes(t)
			o.send(c, 0, 100)
			if err := s.Wait(within(t), 41); err != nil {
				t.Fatal(err)
			}
			s.EachConn(lose)
			<-c.Done()
			want := map[Class]int{Unknown: 40, NotSent: 60}
			if name == "GOAWAY 0" {
				want = map[Class]int{NotSent: 100}
			}
			o.want(want)
			if c.Err() == nil {
				t.Error("no Err")
			}
		})
	}
}

func TestSilentPeer(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true})
	c := mustDial(t, s, Config{PingAfter: 50 * time.Millisecond, PingTimeout: 100 * time.Millisecond})
	if o := c.Push(within(t), testPush()); o.Class != Delivered {
		t.Fatal(o)
	}
	s.EachConn((*apnstest.Conn).Mute)
	o := newOutcomes(t)
	o.send(c, 0, 5)
	<-c.Done()
	o.want(map[Class]int{Unknown: 5})
	if c.Err() != errSilent {
		t.Errorf("Err %v", c.Err())
	}
}

// The peer stops reading: the kernel's buffers fill, and the write does not
// come to an end.
func TestPeerStopsReading(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true, ConnWindow: maxWindow, Settings: apnstest.Settings{InitialWindowSize: new(uint32(maxWindow))}})
	const pushes = 200
	c := mustDial(t, s, Config{WriteTimeout: 200 * time.Millisecond, InFlight: pushes})
	if o := c.Push(within(t), testPush()); o.Class != Delivered {
		t.Fatal(o)
	}
	s.EachConn((*apnstest.Conn).Stall)
	big := testPush()
	big.Payload = make([]byte, 256<<10)
	o := newOutcomes(t)
	for i := range pushes {
		c.Send(big, o.done(i))
	}
	<-c.Done()
	if n := o.counts(); n[Unknown] == 0 || n[NotSent] == 0 || n[Unknown]+n[NotSent] != pushes {
		t.Errorf("outcomes %v", n)
	}
}

func TestOneStreamFirstServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true, OneStreamFirst: true, DropTo1After4xx: true})
	c := mustDial(t, s, Config{InFlight: 200})
	o := newOutcomes(t)
	o.send(c, 0, 200)
	if err := s.WaitAnswered(within(t), 200); err != nil {
		t.Fatal(err)
	}
	if err := c.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	o.want(map[Class]int{Delivered: 200})
}

func TestOnChangeTellsOfFreeSlots(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true})
	change := make(chan struct{}, 1)
	c := mustDial(t, s, Config{InFlight: 20, OnChange: func() {
		select {
		case change <- struct{}{}:
		default:
		}
	}})
	// A caller that knows nothing but Free and OnChange gets all through.
	o := newOutcomes(t)
	for sent := 0; sent < 500; {
		for n := c.Free(); n > 0 && sent < 500; n-- {
			o.send(c, sent, 1)
			sent++
		}
		select {
		case <-change:
		case <-within(t).Done():
			t.Fatal("no change")
		}
	}
	if err := s.Wait(within(t), 500); err != nil {
		t.Fatal(err)
	}
	s.EachConn(func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown")) })
	for c.Usable() {
		<-change
	}
	<-c.Done()
	o.want(map[Class]int{Delivered: 500})
	var goAway *GoAwayError
	if !errors.As(c.Err(), &goAway) || goAway.Reason != "Shutdown" {
		t.Errorf("Err %v", c.Err())
	}
}

// A connection that has carried nothing for a day, while its PINGs are
// answered, takes the next push.
func TestIdleForADay(t *testing.T) {
	t.Parallel()
	bubble(t, Config{PushTimeout: time.Second}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		pings := func() int { p.mu.Lock(); defer p.mu.Unlock(); return p.pings }
		for begun, answered := time.Now(), 0; time.Since(begun) < 24*time.Hour; {
			time.Sleep(time.Second)
			p.settle()
			if n := pings(); n > answered {
				answered = n
				p.do(func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) })
			}
		}
		if !c.Usable() {
			t.Fatalf("ended: %v", c.Err())
		}
		if n := pings(); n < 10 {
			t.Errorf("%d PINGs in a day: a dead connection would not be noticed", n)
		}
		o := newOutcomes(t)
		o.send(c, 0, 1)
		p.settle()
		p.answer("200", 3)
		o.want(map[Class]int{Delivered: 1})
	})
}
