package apnsconn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// TestStress sends 200,000 pushes over three connections while everything
// that may go wrong at either end does, at random. Each push must end exactly
// once, and as not sent only if the server did not process it.
//
// APNSCONN_STRESS is another number of pushes (make stress: a million), and
// APNSCONN_STRESS_SEED the seed of an earlier run: it repeats the dice, though
// not the scheduling.
func TestStress(t *testing.T) {
	t.Parallel()
	total := fromEnv(t, "APNSCONN_STRESS", 200_000)
	if testing.Short() {
		total = min(total, 100_000)
	}
	seed := fromEnv(t, "APNSCONN_STRESS_SEED", time.Now().UnixNano())
	t.Logf("APNSCONN_STRESS=%d APNSCONN_STRESS_SEED=%d", total, seed)

	st := &stress{t: t, dice: newDice(seed), pushes: make([]stressed, total)}
	s := startServer(t, apnstest.Options{AllowAnonymous: true, NoValidation: true, Record: -1, Script: st.answer})
	start := time.Now()
	var senders sync.WaitGroup
	const lines, perLine = 3, 2
	for i := range lines {
		l := &stressLine{st: st, s: s, slots: make(chan struct{}, stressInFlight)}
		first, end := int(total)*i/lines, int(total)*(i+1)/lines
		var next atomic.Int64
		next.Store(int64(first))
		senders.Go(func() {
			var sending sync.WaitGroup
			for range perLine {
				sending.Go(func() {
					for i := next.Add(1) - 1; i < int64(end); i = next.Add(1) - 1 {
						l.send(int(i))
					}
				})
			}
			sending.Wait()
			l.finish()
		})
	}
	senders.Wait()
	st.report(time.Since(start))
}

func fromEnv(t *testing.T, name string, def int64) int64 {
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(name, err)
	}
	return v
}

const stressInFlight = 400

// stress is the state of one run.
type stress struct {
	t       *testing.T
	dice    *dice
	pushes  []stressed
	classes [Unknown + 1]atomic.Int64
	conns   atomic.Int64
}

// stressed is what happened to one push.
type stressed struct {
	stream atomic.Uint32 // on which the server processed it; 0: it did not
	ended  atomic.Int32
}

// end is the callback of push i.
func (st *stress) end(i int, o Outcome) {
	p := &st.pushes[i]
	if n := p.ended.Add(1); n != 1 {
		st.t.Errorf("push %d ended %d times: %+v", i, n, o)
	}
	st.classes[o.Class].Add(1)
	stream := p.stream.Load()
	switch o.Class {
	case Delivered:
		if stream == 0 {
			st.t.Errorf("push %d was not processed, and ended as delivered", i)
		}
	case NotSent:
		// The server may take back by a GOAWAY what it has not answered.
		var goAway *GoAwayError
		if stream != 0 && !(errors.As(o.Err, &goAway) && goAway.LastStreamID < stream) {
			st.t.Errorf("push %d was processed on stream %d, and ended as not sent: %v", i, stream, o.Err)
		}
	}
	if (o.Class == NotSent || o.Class == Unknown) && o.Err == nil {
		st.t.Errorf("push %d: %+v without Err", i, o)
	}
}

func (st *stress) report(took time.Duration) {
	for i := range st.pushes {
		if n := st.pushes[i].ended.Load(); n != 1 {
			st.t.Fatalf("push %d ended %d times", i, n)
		}
	}
	for class := Delivered; class <= Unknown; class++ {
		st.t.Logf("%s: %d", class, st.classes[class].Load())
	}
	st.t.Logf("%d connections, %v", st.conns.Load(), took.Round(time.Millisecond))
	for _, class := range []Class{Delivered, NotSent, Unknown, Rejected, Unavailable} {
		if st.classes[class].Load() == 0 {
			st.t.Errorf("no push ended as %s: the test does not test", class)
		}
	}
}

// stressLine is a sequence of connections, one at a time.
type stressLine struct {
	st    *stress
	s     *apnstest.Server
	slots chan struct{}

	mu    sync.Mutex
	c     *Conn
	conns []*Conn
}

// conn is nil when the server cannot be reached.
func (l *stressLine) conn() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c != nil && l.c.Usable() {
		return l.c
	}
	c, err := Dial(l.st.t.Context(), Config{
		Addr: l.s.Addr, RootCAs: l.s.CertPool(), InFlight: stressInFlight,
		PushTimeout: 2 * time.Second, DialTimeout: time.Minute,
	})
	if err != nil {
		l.st.t.Error(err)
		return nil
	}
	l.c = c
	l.conns = append(l.conns, c)
	l.st.conns.Add(1)
	return c
}

// send sends push i, and is rude to the connection now and then.
func (l *stressLine) send(i int) {
	l.slots <- struct{}{}
	c := l.conn()
	if c == nil {
		<-l.slots
		return
	}
	n := testPush()
	n.Token = fmt.Sprintf("%064d", i)
	n.Payload = n.Payload[:l.st.dice.roll(len(n.Payload))]
	roll := l.st.dice.roll(100_000)
	if roll < 200 {
		n.Payload = make([]byte, l.st.dice.roll(40_000)) // over several records
	}
	if 200 <= roll && roll < 400 {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(l.st.dice.roll(3000))*time.Microsecond)
			defer cancel()
			l.st.end(i, c.Push(ctx, n))
			<-l.slots
		}()
		return
	}
	c.Send(n, func(o Outcome) {
		l.st.end(i, o)
		<-l.slots
	})
	switch {
	case 400 <= roll && roll < 410:
		c.Close()
	case 410 <= roll && roll < 420:
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		c.Drain(ctx)
		cancel()
	}
}

// finish drains what is open, and looks whether anything was left behind.
func (l *stressLine) finish() {
	for _, c := range l.conns {
		if err := c.Drain(within(l.st.t)); err != nil {
			l.st.t.Error(err)
		}
		if breach := (*peerError)(nil); errors.As(c.Err(), &breach) {
			l.st.t.Errorf("the server, which obeys HTTP/2, is accused: %v", breach)
		}
		c.mu.Lock()
		if n := c.all.n + c.waiting.n + c.blocked.n + len(c.streams) + len(c.fin); n != 0 {
			l.st.t.Errorf("%d pushes left on a connection that has ended", n)
		}
		c.mu.Unlock()
	}
	for range stressInFlight { // the callbacks of Push are its callers' business
		l.slots <- struct{}{}
	}
}

// dice are shared by all that leave something to chance.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed int64) *dice { return &dice{rng: rand.New(rand.NewPCG(uint64(seed), 0))} }

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *dice) any(v ...uint32) uint32 { return v[d.roll(len(v))] }

// answer is the server's side: most requests are answered 200.
func (st *stress) answer(r *apnstest.Request) apnstest.Answer {
	i, err := strconv.Atoi(r.Token)
	if err != nil {
		panic(err)
	}
	roll := st.dice.roll(100_000)
	if roll < 300 {
		return apnstest.Answer{Reset: new(http2.ErrCodeRefusedStream)}
	}
	st.pushes[i].stream.Store(r.Stream)
	switch {
	case roll < 500:
		return apnstest.Answer{Reset: new(http2.ErrCodeInternal)}
	case roll < 700:
		return apnstest.Answer{Status: 400, Reason: "PayloadEmpty", Pad: 10, SplitBody: 3}
	case roll < 900:
		return apnstest.Answer{Status: 503, Reason: "ServiceUnavailable", SplitHeaders: 9}
	case roll < 1100:
		return apnstest.Answer{Delay: time.Duration(st.dice.roll(20)) * time.Millisecond}
	case roll < 1105:
		return apnstest.Answer{Silence: true}
	case roll < 1110:
		return apnstest.Answer{Status: 503, Reason: "Shutdown"}
	case roll < 1160:
		return apnstest.Answer{Then: st.trouble()}
	case roll < 1220:
		return apnstest.Answer{Then: st.loss()}
	}
	return apnstest.Answer{}
}

// trouble is what a connection survives.
func (st *stress) trouble() func(*apnstest.Conn) {
	d := st.dice
	soon := time.Duration(d.roll(5000)) * time.Microsecond
	set := func(id http2.SettingID, v uint32) func(*apnstest.Conn) {
		return func(c *apnstest.Conn) { c.Settings(http2.Setting{ID: id, Val: v}) }
	}
	bothWays := func(do, undo func(*apnstest.Conn)) func(*apnstest.Conn) {
		return func(c *apnstest.Conn) {
			do(c)
			time.AfterFunc(soon, func() { undo(c) })
		}
	}
	const streams, window = http2.SettingMaxConcurrentStreams, http2.SettingInitialWindowSize
	switch d.roll(9) {
	case 0:
		return bothWays(set(streams, d.any(0, 1, 3, 30)), set(streams, d.any(100, 1000)))
	case 1:
		return bothWays(set(window, d.any(0, 1, 10, 1000)), set(window, d.any(65535, 1<<20)))
	case 2:
		return set(http2.SettingHeaderTableSize, d.any(0, 100, 4096))
	case 3:
		return set(http2.SettingMaxFrameSize, d.any(1<<14, 1<<20))
	case 4:
		return bothWays(
			func(c *apnstest.Conn) { c.WithholdWindowUpdates(true) },
			func(c *apnstest.Conn) { c.WithholdWindowUpdates(false) },
		)
	case 5:
		return bothWays((*apnstest.Conn).Stall, (*apnstest.Conn).Resume)
	case 6:
		return func(c *apnstest.Conn) { c.Ping([8]byte{1}) }
	case 7:
		return func(c *apnstest.Conn) {
			c.Frames(func(fr *http2.Framer) { fr.WriteRawFrame(0xbe, 0xff, 1, []byte("unknown")) })
		}
	}
	back := uint32(2 * d.roll(40))
	code := http2.ErrCode(d.any(uint32(http2.ErrCodeInternal), uint32(http2.ErrCodeCancel), uint32(http2.ErrCodeNo)))
	return bothWays(func(*apnstest.Conn) {}, func(c *apnstest.Conn) {
		if last := c.LastStream(); last > back {
			c.ResetStream(last-back, code)
		}
	})
}

// loss is what a connection does not survive.
func (st *stress) loss() func(*apnstest.Conn) {
	why, back := apnstest.GoAwayReason("Shutdown"), uint32(2*st.dice.roll(100))
	switch st.dice.roll(6) {
	case 0:
		return func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, why) }
	case 1: // in two steps, as RFC 9113 §6.8 has it
		return func(c *apnstest.Conn) {
			c.GoAway(maxStreamID, http2.ErrCodeNo, nil)
			c.Shutdown(http2.ErrCodeNo, why)
			c.CloseTLS()
		}
	case 2: // what has come lately is given back
		return func(c *apnstest.Conn) { c.GoAway(max(back, c.LastStream())-back, http2.ErrCodeNo, why) }
	case 3:
		return (*apnstest.Conn).CloseAbruptly
	case 4:
		return (*apnstest.Conn).CloseTCP
	}
	return (*apnstest.Conn).CloseTLS
}
