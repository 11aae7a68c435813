package worker_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// plan is one run: its setup and the steps that happen. It is drawn from a seed and can be
// shortened.
type plan struct {
	seed     uint64
	workers  int
	inFlight int
	retryMin time.Duration
	giveUp   time.Duration
	prefetch bool // the queue's consumers reserve ahead

	ttl, expiration time.Duration // the app's defaults; 0 means none
	forgetful       bool          // no reload keeps what is known of tokens
	lanes           int           // apps with the same credential; at least 1
	rate            int           // max_rate of each; 0 means none
	sleep           time.Duration // after so long without work an app sleeps; 0 means never
	steps           []step
	log             *diary // what happened; nil keeps no log
}

// step is one event, and how long it takes until the next.
type step struct {
	op   op
	kind int           // the variant of op: see its names
	n    int           // tokens of a job, number of jobs, or which worker
	id   int           // of a job: stays the same when other steps are left out
	lane int           // of a job
	d    time.Duration // how long the event lasts, or the job's delay, ttl …
	wait time.Duration
}

type op int

const (
	opPut     op = iota
	opAPNs       // how APNs answers from now on
	opDial       // how dials end from now on
	opConn       // something happens to the open connections
	opQueue      // how the queue answers from now on
	opSession    // the queue's sessions are lost: all reserved jobs are ready again
	opHold       // an operator holds the app
	opUnhold
	opResume  // an operator says that the app's trouble is over
	opKick    // an operator kicks all buried jobs
	opReplace // the watchdog replaces a worker's connection
	opRestart // the watchdog restarts a worker
	opStop    // a worker is stopped, and started again after d
	opReload  // the app's workers are replaced
	opRate    // max_rate is another one
	opClock   // the wall clock is set; see model.setClock
	numberOfOps
)

// Kinds of jobs.
const (
	jobSingle = iota
	jobList
	jobDelayed
	jobTTL
	jobExpiration
	jobLarge
	jobGarbage
	jobUnknownKey
	jobStale // with tokens of every nature
	jobBad   // with tokens that APNs calls wrong
	numberOfJobs
)

// Kinds of answers of APNs.
const (
	apnsWell = iota
	apnsMixture
	apnsThrottled
	apnsUnavailable
	apnsCredential
	apnsRefusesAll
	apnsRefusesSome
	apnsSlow
	apnsWrongEnvironment
	apnsShutdown
	apnsUnknown
	apnsLosing
	numberOfAnswers
)

// Kinds of dials.
const (
	dialWell = iota
	dialFails
	dialHangs
	dialCredential
	numberOfDials
)

// Kinds of ends of connections.
const (
	connBounces = iota // the next pushes come back unsent with the connection, then APNs is away for d
	connLost           // open pushes end unknown
	connGoAway         // GOAWAY amid the open pushes
	connAway           // lost, then APNs is away for d
	numberOfEnds
)

// Kinds of answers of the queue.
const (
	queueWell = iota
	queueRefusesPuts
	queueUncertainPuts
	queueRefusesBurials
	queueRefusesRecords
	queueSlowSettles
	queueLosesDone
	queueSlowStat
	queueFailsStat
	queueAway
	queueAwayAndLost
	queueDeaf // Receive does not end with its context
	numberOfQueues
)

var opNames = [numberOfOps][]string{
	opPut:     {"single token", "list", "delayed list", "list with ttl", "list with expiration", "list too large for a rest", "not JSON", "unknown key", "list of all natures", "bad tokens"},
	opAPNs:    {"is well", "answers a mixture", "throttles", "is unavailable", "refuses the credential", "refuses all streams", "refuses some streams", "is slow", "calls all tokens wrong", "shuts down", "leaves pushes without an answer", "loses connections"},
	opDial:    {"connect", "fail at once", "hang and fail", "are refused for the credential"},
	opConn:    {"next pushes bounce with a GOAWAY that covers nothing, then away", "lost", "GOAWAY in the middle", "lost, then away"},
	opQueue:   {"is well", "refuses puts", "puts uncertainly", "refuses burials and retries", "refuses records", "settles slowly", "loses what is done", "is slow in stat", "fails in stat", "is away", "is away and loses the session", "is deaf"},
	opSession: {"session lost"}, opHold: {"hold"}, opUnhold: {"end of hold"}, opResume: {"resume"}, opKick: {"kick"},
	opReplace: {"replace"}, opRestart: {"restart"}, opStop: {"stop"}, opReload: {"reload", "reload, tokens kept"}, opRate: {"max_rate"}, opClock: {"clock set"},
}

func (s step) String() string {
	what := opNames[s.op][s.kind]
	switch s.op {
	case opPut:
		what = fmt.Sprintf("put job %d in lane %d: %s, %d tokens", s.id, s.lane, what, s.n)
		if s.d > 0 {
			what += fmt.Sprintf(", %v", s.d)
		}
	case opAPNs:
		what = "apns " + what
	case opDial:
		what = "dials " + what
	case opConn:
		what = "connections: " + what
		if s.d > 0 {
			what += fmt.Sprintf(" for %v", s.d)
		}
	case opQueue:
		what = "queue " + what
	case opReplace, opRestart:
		what = fmt.Sprintf("%s worker %d", what, s.n)
	case opStop:
		what = fmt.Sprintf("stop worker %d, start it %v later", s.n, s.d)
	case opRate:
		what = fmt.Sprintf("max_rate is %d", s.n)
	case opClock:
		what = fmt.Sprintf("clock set by %v", s.d)
	}
	return fmt.Sprintf("%s; wait %v", what, s.wait)
}

func (p plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d workers, %d in flight, retry.min %v, give_up_after %v, ttl %v, expiration %v%s\n",
		p.seed, p.workers, p.inFlight, p.retryMin, p.giveUp, p.ttl, p.expiration, p.flags())
	for i, s := range p.steps {
		fmt.Fprintf(&b, "  %2d. %s\n", i+1, s)
	}
	return b.String()
}

func (p plan) flags() (s string) {
	if p.prefetch {
		s += ", the queue reserves ahead"
	}
	if p.lanes > 1 {
		s += fmt.Sprintf(", %d lanes", p.lanes)
	}
	if p.rate > 0 {
		s += fmt.Sprintf(", max_rate %d", p.rate)
	}
	if p.sleep > 0 {
		s += fmt.Sprintf(", sleeps after %v", p.sleep)
	}
	if p.forgetful {
		s += ", no reload keeps tokens"
	}
	return s
}

// drawPlan draws the run of a seed.
func drawPlan(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	p := plan{
		seed: seed, workers: 1 + r.IntN(3), inFlight: 1 + r.IntN(30), prefetch: r.IntN(2) == 0,
		retryMin: pick(r, time.Second, 5*time.Second, time.Minute), giveUp: pick(r, time.Hour, 4*time.Hour, 24*time.Hour),
	}
	p.forgetful = r.IntN(10) == 0
	if r.IntN(8) == 0 {
		p.ttl = pick(r, 10*time.Second, 5*time.Minute)
	}
	if r.IntN(8) == 0 {
		p.expiration = pick(r, 10*time.Second, 5*time.Minute)
	}
	p.lanes = 1 + r.IntN(2)
	if r.IntN(3) == 0 {
		p.rate = drawRate(r)
	}
	if r.IntN(2) == 0 {
		p.sleep = pick(r, time.Second, 5*time.Second, time.Minute)
	}
	for range 3 + r.IntN(20) {
		p.steps = append(p.steps, drawStep(r, p.workers, len(p.steps)+1))
	}
	return p
}

// drawRate draws a max_rate.
func drawRate(r *rand.Rand) int { return pick(r, 1, 5, 20, 200, 2000) }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// weights of the steps other than puts.
var weights = [numberOfOps]int{
	opAPNs: 12, opDial: 4, opConn: 6, opQueue: 9, opSession: 2, opHold: 2, opUnhold: 2, opResume: 2, opKick: 2,
	opReplace: 1, opRestart: 1, opStop: 3, opReload: 2, opRate: 1, opClock: clockWeight,
}

// The clock is set only if the worker has a hook for it.
var clockWeight = map[bool]int{true: 2}[hasClock]

func drawOp(r *rand.Rand) op {
	if r.IntN(5) < 2 {
		return opPut
	}
	all := 0
	for _, w := range weights {
		all += w
	}
	n := r.IntN(all)
	for o, w := range weights {
		if n -= w; n < 0 {
			return op(o)
		}
	}
	return opPut
}

func drawStep(r *rand.Rand, workers, id int) step {
	s := step{op: drawOp(r), id: id, lane: r.IntN(2), wait: drawWait(r)}
	ms := func(from, to int) time.Duration { return time.Duration(from+r.IntN(to-from)) * time.Millisecond }
	s.kind = r.IntN(len(opNames[s.op]))
	switch s.op {
	case opPut:
		s.n = 1 + r.IntN(60)
		switch s.kind {
		case jobSingle, jobGarbage, jobUnknownKey:
			s.n = 1
		case jobDelayed:
			s.d = ms(100, 20000)
		case jobTTL, jobExpiration:
			s.d = ms(1000, 120000)
			if r.IntN(3) == 0 {
				s.n = 1
			}
		case jobBad:
			s.n = 1 + r.IntN(25)
		}
		s.wait /= time.Duration(1 + 9*r.IntN(2))
	case opAPNs, opQueue, opDial:
		if r.IntN(4) == 0 {
			s.kind = 0
		}
	case opConn:
		s.d = ms(2000, 20000)
	case opReplace, opRestart, opStop:
		s.n = r.IntN(workers)
		s.d = ms(0, 10000)
	case opRate:
		s.n = pick(r, 0, drawRate(r))
	case opClock:
		s.d = pick(r, -time.Hour, time.Hour)
	}
	return s
}

func drawWait(r *rand.Rand) time.Duration {
	switch r.IntN(5) {
	case 0:
		return 0
	case 1:
		return time.Duration(r.IntN(300)) * time.Millisecond
	case 2, 3:
		return time.Duration(r.IntN(5000)) * time.Millisecond
	}
	return time.Duration(r.IntN(40000)) * time.Millisecond
}
