package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"propeller/internal/apnslean"
	"propeller/internal/text"
)

// arrivals accounts for every push of a run at the stand-in: they are numbered, and each
// payload has its number.
type arrivals struct {
	apns *apnslean.Server

	mu      sync.Mutex
	pushes  []arrival // by number
	from    int       // the first of the measurement that runs
	older   int       // of those before it, at least once
	came    int       // of those from there on, at least once
	strange int       // requests whose number nobody has given out
	changed chan struct{}
}

// arrival is what is known of a push.
type arrival struct {
	put   time.Time
	first time.Time // when its first request came; zero: none did
	times int
}

func newArrivals() (*arrivals, error) {
	a := &arrivals{changed: make(chan struct{}, 1)}
	var err error
	a.apns, err = apnslean.Start(apnslean.Options{Seen: a.seen})
	return a, err
}

// The end of a payload: its number, and apnslean's stamp.
const (
	numberName   = `"n":"`
	numberDigits = 10
	stampLength  = len(`"put":1700000000000000}`)
)

// job makes the job of the next push, but for what says whose it is: the inside of an object.
func (a *arrivals) job() (number int, fields []byte) {
	a.mu.Lock()
	number = len(a.pushes)
	now := time.Now()
	a.pushes = append(a.pushes, arrival{put: now})
	a.mu.Unlock()
	end := fmt.Sprintf(`%s%0*d",%s}`, numberName, numberDigits, number, apnslean.Stamp(now))
	const begin = `{"aps":{"alert":"`
	text := strings.Repeat("x", payload-len(begin)-len(`"},`)-len(end))
	return number, fmt.Appendf(nil, `"token":"%064x","payload":%s%s"},%s`, number, begin, text, end)
}

// numberIn reads the number of a payload.
func numberIn(payload []byte) (int, bool) {
	to := len(payload) - stampLength - len(`",`)
	from := to - numberDigits
	if from < len(numberName) || string(payload[from-len(numberName):from]) != numberName {
		return 0, false
	}
	n, err := strconv.Atoi(string(payload[from:to]))
	return n, err == nil
}

// seen is told of each request.
func (a *arrivals) seen(at time.Time, payload []byte) {
	n, ok := numberIn(payload)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !ok || n >= len(a.pushes) {
		a.strange++
		return
	}
	p := &a.pushes[n]
	if p.times++; p.times > 1 {
		return
	}
	p.first = at
	if n < a.from {
		a.older++
		return
	}
	a.came++
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// begin begins a measurement, which waits for no earlier push. It returns the number of the
// next push.
func (a *arrivals) begin() (from int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.older += a.came
	a.from, a.came = len(a.pushes), 0
	return a.from
}

// earlier is how many pushes from before the measurement have come, and have not.
func (a *arrivals) earlier() (came, missing int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.older, a.from - a.older
}

// wait waits until all pushes of the measurement have come, for a time at most. It returns
// when the last one came.
func (a *arrivals) wait(ctx context.Context, most time.Duration) (last time.Time, err error) {
	end := time.NewTimer(most)
	defer end.Stop()
	for {
		a.mu.Lock()
		from, missing := a.from, len(a.pushes)-a.from-a.came
		a.mu.Unlock()
		if missing == 0 {
			break
		}
		select {
		case <-a.changed:
		case <-end.C:
			return last, fmt.Errorf("not all pushes have come within %v: %v", most, a.count(from))
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pushes[a.from:] {
		if p.first.After(last) {
			last = p.first
		}
	}
	return last, nil
}

// tally is how often pushes have come.
type tally struct{ once, again, missing, strange int }

func (t tally) String() string {
	s := text.Count(int64(t.once)) + " once"
	for _, more := range []struct {
		n    int
		what string
	}{{t.again, "more than once"}, {t.missing, "never"}, {t.strange, "that nobody put"}} {
		if more.n > 0 {
			s += fmt.Sprintf(", %s %s", text.Count(int64(more.n)), more.what)
		}
	}
	return s
}

// count counts the pushes from a number on.
func (a *arrivals) count(from int) tally {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := tally{strange: a.strange}
	for _, p := range a.pushes[from:] {
		switch p.times {
		case 0:
			t.missing++
		case 1:
			t.once++
		default:
			t.again++
		}
	}
	return t
}

// delays are the times from put to request, of pushes from a number on.
func (a *arrivals) delays(from int) delays {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all delays
	for _, p := range a.pushes[from:] {
		if p.times > 0 {
			all = append(all, p.first.Sub(p.put))
		}
	}
	slices.Sort(all)
	return all
}

// delays are in order.
type delays []time.Duration

// and has those of another measurement, too.
func (d delays) and(more delays) delays {
	all := slices.Concat(d, more)
	slices.Sort(all)
	return all
}

// at is the time that a share of them do not exceed.
func (d delays) at(share float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(len(d)-1, int(share*float64(len(d))))]
}

func (d delays) String() string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("p50 %.1f, p99 %.1f, longest %.1f ms of %s pushes", ms(d.at(0.5)), ms(d.at(0.99)), ms(d.at(1)), text.Count(int64(len(d))))
}
