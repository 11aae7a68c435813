package apnsconn

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestPushTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, Config{PushTimeout: 3 * time.Second}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 1))
		o := newOutcomes(t)
		start := time.Now()
		o.send(c, 0, 2) // stream 3, and one that waits
		time.Sleep(time.Second)
		p.do(settings(http2.SettingMaxConcurrentStreams, 2))
		p.do(settings(http2.SettingMaxConcurrentStreams, 1))
		o.send(c, 2, 1) // waits
		p.settle()
		p.answer("200", 5)
		o.want(map[Class]int{Delivered: 1})

		time.Sleep(2*time.Second - 1)
		p.settle()
		o.want(map[Class]int{Delivered: 1})
		time.Sleep(time.Nanosecond)
		p.settle()
		o.want(map[Class]int{Delivered: 1, Unknown: 1})
		if got := o.get(0); got.Err != ErrTimeout || time.Since(start) != 3*time.Second {
			t.Errorf("%+v after %v", got, time.Since(start))
		}
		p.wantResets(map[uint32]http2.ErrCode{3: http2.ErrCodeCancel})
		if !c.Usable() {
			t.Errorf("ended after one timeout: %v", c.Err())
		}
		p.answer("200", 7) // its place went to the one that waited
		o.want(map[Class]int{Delivered: 2, Unknown: 1})
		p.answer("200", 3) // too late
		o.want(map[Class]int{Delivered: 2, Unknown: 1})
	})
}

func TestTimeoutBeforeSending(t *testing.T) {
	t.Parallel()
	bubbleWith(t, Config{PushTimeout: 3 * time.Second}, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		o.send(c, 0, 5)
		time.Sleep(3 * time.Second)
		p.settle()
		o.want(map[Class]int{NotSent: 5})
		if !c.Usable() || p.opened() != 0 {
			t.Errorf("%v, %d streams", c.Err(), p.opened())
		}
		p.wantResets(nil)
	})
}

func TestTwoTimeoutsEndTheConnection(t *testing.T) {
	t.Parallel()
	bubble(t, Config{PushTimeout: 10 * time.Second}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 4))
		o := newOutcomes(t)
		send := func(i int) { o.send(c, i, 1); p.settle(); time.Sleep(time.Second) }
		for i := range 4 {
			send(i) // streams 3 to 9, at 0 s to 3 s
		}
		send(4) // waits
		time.Sleep(4 * time.Second)
		p.answer("200", 7) // at 9 s; 11 goes out in its place
		time.Sleep(time.Second)
		p.settle()
		o.want(map[Class]int{Delivered: 1, Unknown: 1})
		o.send(c, 5, 2) // 13 takes the place of 3, one waits
		time.Sleep(time.Second)
		p.settle()
		o.want(map[Class]int{Delivered: 1, Unknown: 2})
		if !c.Usable() { // 3 and 5 timed out, but 7 was answered since they were sent
			t.Errorf("given up too early: %v", c.Err())
		}
		o.send(c, 7, 3)
		time.Sleep(9 * time.Second)
		<-c.Done() // 11, at 14 s, and 13, at 20 s
		o.want(map[Class]int{Delivered: 1, Unknown: 8, NotSent: 1})
		if c.Err() != errDeadlines {
			t.Errorf("Err %v", c.Err())
		}
	})
}

// Some answers never come though all is well (kylebrowning/APNSwift#93): on a
// connection that answered others meanwhile, such pushes time out, even together,
// and nothing else.
func TestOmittedAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, Config{PushTimeout: 10 * time.Second}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 5) // streams 3 to 11
		time.Sleep(time.Second)
		p.answer("200", 5, 9, 11)
		time.Sleep(8 * time.Second)
		o.send(c, 5, 1) // stream 13
		p.settle()
		p.do(func(fr *http2.Framer) { // an answer without end is one too
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 13, BlockFragment: block(":status", "200"), EndHeaders: true})
		})
		time.Sleep(time.Second)
		p.settle()
		o.want(map[Class]int{Delivered: 3, Unknown: 2})
		if !c.Usable() {
			t.Errorf("given up: %v", c.Err())
		}
		time.Sleep(9 * time.Second)
		p.settle()
		o.want(map[Class]int{Delivered: 4, Unknown: 2})
		if !c.Usable() {
			t.Errorf("given up: %v", c.Err())
		}
	})
}

func TestAnswersBetweenTimeouts(t *testing.T) {
	t.Parallel()
	bubble(t, Config{PushTimeout: 10 * time.Second}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		for i := range uint32(20) {
			o.send(c, int(2*i), 2)
			p.settle()
			p.answer("200", 3+4*i) // every second push
			time.Sleep(10 * time.Second)
			p.settle()
		}
		o.want(map[Class]int{Delivered: 20, Unknown: 20})
		if !c.Usable() {
			t.Errorf("Err %v", c.Err())
		}
	})
}

func TestSilence(t *testing.T) {
	t.Parallel()
	bubble(t, Config{PingAfter: 30 * time.Second, PingTimeout: 10 * time.Second, PushTimeout: time.Hour}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		pings := func() int { p.mu.Lock(); defer p.mu.Unlock(); return p.pings }
		for i := range 3 {
			time.Sleep(30*time.Second - 1)
			p.settle()
			if n := pings(); n != i {
				t.Fatalf("%d PINGs, want %d", n, i)
			}
			time.Sleep(time.Nanosecond)
			p.settle()
			if n := pings(); n != i+1 {
				t.Fatalf("%d PINGs, want %d", n, i+1)
			}
			p.do(func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) })
		}
		o := newOutcomes(t)
		o.send(c, 0, 3)
		time.Sleep(40*time.Second - 1)
		p.settle()
		if !c.Usable() {
			t.Fatal("given up too early")
		}
		time.Sleep(time.Nanosecond)
		<-c.Done()
		if c.Err() != errSilent {
			t.Errorf("Err %v", c.Err())
		}
		o.want(map[Class]int{Unknown: 3})
	})
}

func TestIdleKeepsNoBuffers(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 500}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		o := newOutcomes(t)
		o.send(c, 0, 400)
		p.settle()
		for id := uint32(3); id < 803; id += 2 {
			p.send(func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(":status", "200"), EndHeaders: true, EndStream: true})
			})
		}
		p.settle()
		o.want(map[Class]int{Delivered: 400})
		for range 3 {
			time.Sleep(31 * time.Second) // the PING came a second ago
			p.do(func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) })
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if n := cap(c.out.b) + cap(c.spare); n > 1024 {
			t.Errorf("%d bytes of buffers on an idle connection", n)
		}
	})
}

func TestWriteWithoutProgress(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		// The pipe has no buffer: a peer that does not read stops the writer.
		o := newOutcomes(t)
		pc := c.nc
		c.nc = progressConn{stalledConn{pc}, 10 * time.Second} // nothing is being written
		start := time.Now()
		o.send(c, 0, 2)
		p.settle()
		o.send(c, 2, 2) // behind the write that hangs
		<-c.Done()
		if d := time.Since(start); d != 10*time.Second+lingerTimeout {
			t.Errorf("ended after %v", d)
		}
		o.want(map[Class]int{NotSent: 4}) // not a byte has been written
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 1))
		o := newOutcomes(t)
		o.send(c, 0, 2) // one waits, and is still sent
		drained := make(chan error, 1)
		go func() { drained <- c.Drain(t.Context()) }()
		p.settle()
		o.send(c, 2, 1)
		if got := o.get(2); got.Class != NotSent || got.Err != ErrClosed {
			t.Errorf("%+v", got)
		}
		p.answer("200", 3)
		p.answer("200", 5)
		if err := <-drained; err != nil {
			t.Error(err)
		}
		o.want(map[Class]int{Delivered: 2, NotSent: 1})
		p.wantGoAway(http2.ErrCodeNo)
		if err := c.Drain(t.Context()); err != nil {
			t.Errorf("second Drain: %v", err)
		}
	})
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 1))
		o := newOutcomes(t)
		o.send(c, 0, 2)
		p.settle()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain: %v", err)
		}
		o.want(map[Class]int{Unknown: 1, NotSent: 1})
		if c.Err() != ErrClosed {
			t.Errorf("Err %v", c.Err())
		}
	})
}

func TestPushIsCancelled(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 2))
		o := newOutcomes(t)
		o.send(c, 0, 1)
		for i, want := range []Class{Unknown, NotSent} {
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan Outcome, 1)
			if i == 1 {
				p.do(settings(http2.SettingMaxConcurrentStreams, 1)) // it will wait
			}
			go func() { result <- c.Push(ctx, testPush()) }()
			p.settle()
			cancel()
			got := <-result
			if got.Class != want || !errors.Is(got.Err, context.Canceled) {
				t.Errorf("%+v, want class %v", got, want)
			}
			p.settle()
		}
		p.wantResets(map[uint32]http2.ErrCode{5: http2.ErrCodeCancel})
		p.answer("200", 3)
		o.want(map[Class]int{Delivered: 1})
		if got := c.Push(t.Context(), &Notification{Token: "\n"}); got.Class != Rejected {
			t.Errorf("%+v", got)
		}
	})
}

func TestCloseWithManyOpen(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 500}, func(t *testing.T, c *Conn, p *peer) {
		p.open(c)
		p.do(settings(http2.SettingMaxConcurrentStreams, 300))
		o := newOutcomes(t)
		o.send(c, 0, 500)
		p.settle()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		o.want(map[Class]int{Unknown: 300, NotSent: 200})
		p.settle()
		p.wantGoAway(http2.ErrCodeNo)
		if err := c.Close(); err != nil || c.Usable() {
			t.Error(err)
		}
	})
}

// A burst of small sends from several goroutines, and from callbacks, keeps the
// exact-once promise while the connection ends.
func TestSendWhileEnding(t *testing.T) {
	t.Parallel()
	bubble(t, Config{InFlight: 10}, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		finished := make(chan struct{})
		for g := range 4 {
			go func() {
				defer func() { finished <- struct{}{} }()
				for i := range 50 {
					c.Send(testPush(), o.done(g*100+i))
					runtime.Gosched()
				}
			}()
		}
		p.do(func(fr *http2.Framer) { fr.WriteGoAway(0, 0, nil) })
		for range 4 {
			<-finished
		}
		<-c.Done()
		if n := o.counts(); n[NotSent]+n[Unknown] != 200 {
			t.Errorf("outcomes %v", n)
		}
	})
}

// A peer that answers PINGs and lets nothing be sent is given up, so that its
// owner can dial anew.
func TestPeerThatLetsNothingBeSent(t *testing.T) {
	t.Parallel()
	shut := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}
	t.Run("pushes time out", func(t *testing.T) {
		t.Parallel()
		bubbleWith(t, Config{PushTimeout: 3 * time.Second}, shut, func(t *testing.T, c *Conn, p *peer) {
			o := newOutcomes(t)
			for i := range 2 {
				o.send(c, i, 1)
				time.Sleep(3 * time.Second)
				p.settle()
			}
			o.want(map[Class]int{NotSent: 2})
			if c.Usable() || !errors.Is(c.Err(), errStuck) {
				t.Errorf("usable %v, %v", c.Usable(), c.Err())
			}
		})
	})
	t.Run("nobody sends", func(t *testing.T) {
		t.Parallel()
		bubbleWith(t, Config{}, shut, func(t *testing.T, c *Conn, p *peer) {
			for range 30 { // the peer lives: it sends something every 6 s
				time.Sleep(6 * time.Second)
				p.do(func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) })
			}
			p.settle()
			if c.Usable() || !errors.Is(c.Err(), errStuck) {
				t.Errorf("usable %v, %v", c.Usable(), c.Err())
			}
		})
	})
}

func TestPrintingAConnShowsNothing(t *testing.T) {
	t.Parallel()
	bubbleWith(t, Config{}, nil, func(t *testing.T, c *Conn, p *peer) {
		o := newOutcomes(t)
		o.send(c, 0, 1)
		p.settle()
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
			if s := fmt.Sprintf(verb, c); len(s) > 60 {
				t.Errorf("%s: %.100s", verb, s)
			}
		}
		p.answer("200", 1)
	})
}
