package apnsconn

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// TestStress sends 100,000 pushes while everything that may go wrong at the
// other end does, at random. Each push must end exactly once, and none that
// the server has processed may end as NotSent.
func TestStress(t *testing.T) {
	t.Parallel()
	const total, inFlight = 100_000, 400
	processed := make([]atomic.Bool, total)
	s := startServer(t, apnstest.Options{
		AllowAnonymous: true, NoValidation: true, Record: -1,
		Script: chaos(func(id int) { processed[id].Store(true) }),
	})
	ended := make([]atomic.Int32, total)
	var classes [Unknown + 1]atomic.Int64
	var pending sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	var conns []*Conn
	var c *Conn
	for i := range total {
		slots <- struct{}{}
		if c == nil || !c.Usable() {
			c = mustDial(t, s, Config{InFlight: inFlight})
			conns = append(conns, c)
		}
		n := testPush()
		n.Token = fmt.Sprintf("%064d", i)
		n.Payload = n.Payload[:rand.IntN(len(n.Payload))]
		pending.Add(1)
		c.Send(n, func(o Outcome) {
			if ended[i].Add(1) != 1 {
				t.Errorf("push %d ended again: %+v", i, o)
			}
			switch {
			case o.Class == NotSent && processed[i].Load():
				t.Errorf("push %d was processed, and ended as not sent: %v", i, o.Err)
			case o.Class == Delivered && !processed[i].Load():
				t.Errorf("push %d was not processed, and ended as delivered", i)
			case (o.Class == NotSent || o.Class == Unknown) && o.Err == nil:
				t.Errorf("push %d: %+v without Err", i, o)
			}
			classes[o.Class].Add(1)
			<-slots
			pending.Done()
		})
		if i%20_000 == 19_999 {
			c.Close()
		}
	}
	for _, c := range conns {
		if err := c.Drain(within(t)); err != nil {
			t.Error(err)
		}
	}
	pending.Wait()
	for i := range ended {
		if n := ended[i].Load(); n != 1 {
			t.Fatalf("push %d ended %d times", i, n)
		}
	}
	for class := Delivered; class <= Unknown; class++ {
		t.Logf("%s: %d", class, classes[class].Load())
	}
	t.Logf("%d connections", len(conns))
	for _, class := range []Class{Delivered, NotSent, Unknown, Rejected, Unavailable} {
		if classes[class].Load() == 0 {
			t.Errorf("no push ended as %s: the test does not test", class)
		}
	}
}

// chaos answers most requests with 200 and calls processed before it answers.
func chaos(processed func(id int)) apnstest.Script {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(1, 2))
	roll := func(n int) int { mu.Lock(); defer mu.Unlock(); return rng.IntN(n) }
	any := func(v ...uint32) uint32 { return v[roll(len(v))] }
	return func(r *apnstest.Request) apnstest.Answer {
		id, err := strconv.Atoi(r.Token)
		if err != nil {
			panic(err)
		}
		n := roll(10_000)
		if n < 50 {
			return apnstest.Answer{Reset: new(http2.ErrCodeRefusedStream)}
		}
		processed(id)
		switch {
		case n < 100:
			return apnstest.Answer{Reset: new(http2.ErrCodeInternal)}
		case n < 150:
			return apnstest.Answer{Status: 400, Reason: "PayloadEmpty"}
		case n < 200:
			return apnstest.Answer{Status: 503, Reason: "ServiceUnavailable"}
		case n < 250:
			return apnstest.Answer{Delay: time.Duration(roll(20)) * time.Millisecond}
		case n < 260:
			return apnstest.Answer{Then: func(c *apnstest.Conn) { c.MaxStreams(any(3, 30, 1000, 1000)) }}
		case n < 270:
			return apnstest.Answer{Then: func(c *apnstest.Conn) {
				c.Settings(
					http2.Setting{ID: http2.SettingInitialWindowSize, Val: any(10, 65535, 1<<20)},
					http2.Setting{ID: http2.SettingHeaderTableSize, Val: any(0, 100, 4096)},
				)
			}}
		case n < 275:
			return apnstest.Answer{Then: func(c *apnstest.Conn) { c.Ping([8]byte{1}) }}
		case n < 278:
			return apnstest.Answer{Then: func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown")) }}
		case n < 280:
			return apnstest.Answer{Then: func(c *apnstest.Conn) {
				c.GoAway(maxStreamID, http2.ErrCodeNo, nil)
				c.Shutdown(http2.ErrCodeNo, nil)
				c.CloseTLS()
			}}
		case n < 282:
			return apnstest.Answer{Then: (*apnstest.Conn).CloseAbruptly}
		case n < 284:
			return apnstest.Answer{Status: 503, Reason: "Shutdown"}
		}
		return apnstest.Answer{}
	}
}
