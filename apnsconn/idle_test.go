package apnsconn

import (
	"testing"
	"time"

	"golang.org/x/net/http2"
)

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
