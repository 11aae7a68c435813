package worker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// guardBench is a guard, and the rulings on the answers it held.
type guardBench struct {
	t       *testing.T
	g       *guard
	tripped []string

	held map[int]wrongAnswer
	dead map[int]ruling // by answer; absent: still held
	n    int
}

func newGuardBench(t *testing.T) *guardBench {
	return &guardBench{t: t, g: newGuard(new(mailboxes)), held: make(map[int]wrongAnswer), dead: make(map[int]ruling)}
}

func (b *guardBench) right() { b.g.noteRight() }

// wrong reports a wrong answer for token i, and returns the answer's number.
func (b *guardBench) wrong(i int) int {
	b.n++
	s, r, why := b.g.noteWrong(token(i), "BadDeviceToken", time.Now())
	if why != "" {
		b.tripped = append(b.tripped, why)
	}
	if r == isOpen {
		b.held[b.n] = s
	} else {
		b.dead[b.n] = r
	}
	return b.n
}

// ask asks for verdicts, as a worker does when the guard rings its mailbox.
func (b *guardBench) ask() {
	for n, s := range b.held {
		if r := b.g.rule(s, time.Now()); r != isOpen {
			b.g.release()
			delete(b.held, n)
			b.dead[n] = r
		}
	}
}

// burst answers for n tokens of which each is new.
func (b *guardBench) burst(n int) (answers []int) {
	for range n {
		answers = append(answers, b.wrong(b.n))
	}
	return answers
}

// fates counts what became of answers.
func (b *guardBench) fates(answers []int) (dead, back, held int) {
	b.ask()
	for _, n := range answers {
		switch r, settled := b.dead[n]; {
		case !settled:
			held++
		case r == isDead:
			dead++
		default:
			back++
		}
	}
	return dead, back, held
}

func (b *guardBench) want(answers []int, dead, back, held int) {
	b.t.Helper()
	if d, bk, h := b.fates(answers); d != dead || bk != back || h != held {
		b.t.Errorf("%d dead, %d back, %d held; want %d, %d, %d", d, bk, h, dead, back, held)
	}
}

func token(i int) string { return fmt.Sprintf("%064x", i) }

func TestEvidence(t *testing.T) {
	t.Parallel()
	device, channel := apnsconn.Notification{Token: "00ff"}, apnsconn.Notification{ChannelID: "x"}
	for _, tt := range []struct {
		n      apnsconn.Notification
		status int
		reason string
		want   evidence
	}{
		{device, 200, "", rightEvidence},
		{device, 410, "Unregistered", rightEvidence},
		{device, 410, "ExpiredToken", rightEvidence},
		{device, 410, "", rightEvidence},
		{device, 400, "BadDeviceToken", wrongEvidence},
		{device, 400, "DeviceTokenNotForTopic", wrongEvidence},
		{device, 400, "PayloadEmpty", noEvidence},
		{device, 400, "BadTopic", noEvidence},
		{device, 403, "BadCertificateEnvironment", noEvidence},
		{device, 403, "BadDeviceToken", noEvidence},
		{device, 413, "PayloadTooLarge", noEvidence},
		{device, 429, "TooManyRequests", noEvidence},
		{device, 500, "InternalServerError", noEvidence},
		{device, 503, "ServiceUnavailable", noEvidence},
		{device, 0, "", noEvidence},
		{channel, 200, "", noEvidence},
		{channel, 400, "BadDeviceToken", noEvidence},
	} {
		o := apnsconn.Outcome{Class: apnsconn.Token, Status: tt.status, Reason: tt.reason}
		if got := evidenceOf(&tt.n, &o); got != tt.want {
			t.Errorf("%q %d %q: %d, want %d", tt.n.Token, tt.status, tt.reason, got, tt.want)
		}
	}
	job := apnsconn.Outcome{Class: apnsconn.Rejected, Status: 400, Reason: "DeviceTokenNotForTopic"}
	if got := evidenceOf(&device, &job); got != noEvidence {
		t.Errorf("a job of the wrong push type: %d", got)
	}
}

// Wrong answers wait for a right one, which shows that their tokens are dead.
func TestGuardHoldsUntilRight(t *testing.T) {
	t.Parallel()
	b := newGuardBench(t)
	before := b.burst(guardFirst - 1)
	b.want(before, 0, 0, guardFirst-1)
	b.right()
	b.want(before, guardFirst-1, 0, 0)
	after := b.burst(1)
	b.want(after, 0, 0, 1)
	b.right()
	b.want(after, 1, 0, 0)
	if b.g.tripped || b.tripped != nil {
		t.Errorf("tripped: %q", b.tripped)
	}
}

func TestGuardFirstAnswers(t *testing.T) {
	t.Parallel()
	b := newGuardBench(t)
	run := b.burst(guardFirst)
	b.want(run, 0, guardFirst, 0)
	if len(b.tripped) != 1 || !strings.HasPrefix(b.tripped[0], "wrong environment or topic?: ") || !strings.Contains(b.tripped[0], "BadDeviceToken") {
		t.Errorf("tripped: %q", b.tripped)
	}
	if strings.Contains(b.tripped[0], token(guardFirst - 1)[:8]+"0") {
		t.Errorf("the reason has a token: %q", b.tripped[0])
	}
	more := b.burst(5) // were under way
	b.want(more, 0, 5, 0)
	if len(b.tripped) != 1 {
		t.Errorf("tripped again: %q", b.tripped)
	}
}

// A token that is tried again and again counts once, before the first right
// answer and after it; of its answers a limited number is held.
func TestGuardCountsTokensOnce(t *testing.T) {
	t.Parallel()
	for _, right := range []bool{false, true} {
		b := newGuardBench(t)
		limit := guardFirst
		if right {
			b.right()
			limit = guardWindow/2 + 1
		}
		var run []int
		for range 3 * guardWindow {
			run = append(run, b.wrong(7))
		}
		b.want(run, 0, 3*guardWindow-maxPending, maxPending)
		for i := range limit - 2 {
			b.wrong(100 + i)
			b.wrong(100 + i/2)
		}
		if b.g.tripped {
			t.Errorf("right %v: tripped by %d tokens: %q", right, limit-1, b.tripped)
		}
		b.wrong(8)
		if !b.g.tripped {
			t.Errorf("right %v: not tripped by %d tokens", right, limit)
		}
		b.want(run, 0, len(run), 0)
	}
}

// An app that has had right answers: more than half of the last 200 trip it.
func TestGuardMostOfWindow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		wrong      int // of each wrong+right answers
		right      int
		wantTrip   bool
		wantInLast int // answers of the last run, which go back
	}{
		{"all", 1000, 0, true, guardWindow/2 + 1},
		{"half", 1, 1, false, 0},
		{"a little less", 10, 11, false, 0},
		{"a little more", 11, 10, true, 11},
		{"three quarters", 3, 1, true, 3},
		{"one in a hundred", 1, 99, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newGuardBench(t)
			b.right()
			var wrong []int
			for i := 0; i < 2000 && !b.g.tripped; i++ {
				if i%(tt.wrong+tt.right) < tt.wrong {
					wrong = append(wrong, b.burst(1)...)
				} else {
					b.right()
				}
			}
			if b.g.tripped != tt.wantTrip {
				t.Fatalf("tripped %v after %d wrong", b.g.tripped, len(wrong))
			}
			if !tt.wantTrip {
				b.right()
			}
			if dead, back, held := b.fates(wrong); held != 0 || tt.wantTrip && (back == 0 || back > tt.wantInLast) || dead+back != len(wrong) {
				t.Errorf("%d dead, %d back, %d held of %d", dead, back, held, len(wrong))
			}
		})
	}
}

// However the answers come, no more than maxPending are held.
func TestGuardBound(t *testing.T) {
	t.Parallel()
	b := newGuardBench(t)
	b.right()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		switch rng.IntN(40) {
		case 0:
			b.right()
		case 1:
			b.g.reset()
		case 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20:
			b.wrong(7)
		default:
			b.burst(1)
		}
		if b.ask(); b.g.pending > maxPending || b.g.pending != len(b.held) {
			t.Fatalf("%d held, and %d", b.g.pending, len(b.held))
		}
		wrong := 0
		for _, hash := range b.g.answers {
			if hash != 0 {
				wrong++
			}
		}
		if wrong != b.g.wrong {
			t.Fatalf("%d wrong counted, %d in the window", b.g.wrong, wrong)
		}
	}
}

// In an app with nothing else to send an answer waits a minute of its own. Then
// its token is dead, if the app has ever had a right answer.
func TestGuardQuietApp(t *testing.T) {
	t.Parallel()
	for _, right := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			b := newGuardBench(t)
			dead, back := 0, 1
			if right {
				b.right()
				dead, back = 1, 0
			}
			first := b.burst(1)
			time.Sleep(pendingTime - time.Second)
			second := b.burst(1)
			b.want(append(first, second...), 0, 0, 2)
			time.Sleep(time.Second)
			synctest.Wait()
			b.want(first, dead, back, 0)
			b.want(second, 0, 0, 1)
			time.Sleep(pendingTime - time.Second)
			synctest.Wait()
			b.want(second, dead, back, 0)

			time.Sleep(24 * time.Hour)
			third := b.burst(1)
			time.Sleep(pendingTime - time.Second)
			synctest.Wait()
			b.want(third, 0, 0, 1)
			time.Sleep(time.Second)
			synctest.Wait()
			b.want(third, dead, back, 0)
		})
	}
}

// Answers that waited in vain still count: an app that has little to send, all
// of it wrong, is found out as well, and none of its tokens is called dead.
func TestGuardQuietAppTrips(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		b := newGuardBench(t)
		var run []int
		for range guardFirst - 1 {
			run = append(run, b.burst(1)...)
			time.Sleep(pendingTime)
			synctest.Wait()
		}
		if b.g.tripped {
			t.Error("tripped too soon")
		}
		run = append(run, b.burst(1)...)
		b.want(run, 0, guardFirst, 0)
		if !b.g.tripped {
			t.Error("not tripped")
		}
	})
}

// When an answer trips the guard, that decides about those held before, whatever comes later;
// an earlier right answer still counts for answers before it.
func TestGuardTripDecides(t *testing.T) {
	t.Parallel()
	b := newGuardBench(t)
	before := b.burst(3)
	b.right()
	b.burst(guardWindow/2 + 1)
	if !b.g.tripped {
		t.Fatal("not tripped")
	}
	doubted := b.n - 5
	b.g.reset()
	b.right()
	b.want(before, 3, 0, 0)
	b.want([]int{doubted}, 0, 1, 0)
}

func TestGuardReset(t *testing.T) {
	t.Parallel()
	b := newGuardBench(t)
	b.burst(guardFirst)
	b.g.reset()
	again := b.burst(guardFirst) // by hand, though nothing had changed
	b.want(again, 0, guardFirst, 0)
	if len(b.tripped) != 2 {
		t.Fatalf("tripped: %q", b.tripped)
	}

	// A right answer does not end it: of a majority the others were right.
	b.right()
	if !b.g.tripped {
		t.Fatal("not tripped any more")
	}
	b.want(b.burst(1), 0, 1, 0)
	b.g.reset()
	healed := b.burst(guardFirst + 5) // now there has been a right answer
	b.want(healed, 0, 0, guardFirst+5)
	b.g.reset() // nothing to reset: what is held stays so
	b.want(healed, 0, 0, guardFirst+5)
	b.right()
	b.want(healed, guardFirst+5, 0, 0)
}

// A push that goes well costs no memory.
func TestGuardRightAllocates(t *testing.T) {
	g := newGuard(new(mailboxes))
	g.noteRight()
	if n := testing.AllocsPerRun(1000, g.noteRight); n != 0 {
		t.Errorf("%v allocations when calm", n)
	}
	g.noteWrong(token(1), "BadDeviceToken", time.Now())
	g.release()
	g.noteRight()
	if g.calm.Load() {
		t.Fatal("calm with a wrong answer in the window")
	}
	if n := testing.AllocsPerRun(100, g.noteRight); n != 0 {
		t.Errorf("%v allocations after a wrong answer", n)
	}
	for range guardWindow {
		g.noteRight()
	}
	if !g.calm.Load() || g.answers != nil {
		t.Error("not calm after a window of right answers")
	}
}

func BenchmarkGuardRight(b *testing.B) {
	b.Run("calm", func(b *testing.B) {
		g := newGuard(new(mailboxes))
		g.noteRight()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				g.noteRight()
			}
		})
	})
	b.Run("one in 100 wrong", func(b *testing.B) {
		g := newGuard(new(mailboxes))
		g.noteRight()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if i%100 == 0 {
					if _, r, _ := g.noteWrong(testToken, "BadDeviceToken", time.Now()); r == isOpen {
						g.release()
					}
				} else {
					g.noteRight()
				}
			}
		})
	})
}
