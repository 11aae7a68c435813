package worker_test

import (
	"sync/atomic"
	"time"
)

// What the worker may do within one second of virtual time has a generous bound; a loop
// without a pause exceeds any bound.

type rate int

const (
	rateReceive rate = iota
	ratePut          // puts of rests
	rateRecord
	rateDial
	rateSend
	rateAsk // Stat and Touch
	rateSettle
	numberOfRates
)

var rateNames = [numberOfRates]string{"receives", "puts", "records", "dials", "pushes", "questions to the queue", "settles"}

// About four times the most seen in ten thousand seeds; a loop does 500 for each job in it.
// Records come in bursts: one for each token.
var rateBounds = [numberOfRates]int{
	rateReceive: 300, ratePut: 300, rateRecord: 6000, rateDial: 20, rateSend: 3500, rateAsk: 400, rateSettle: 350,
}

// lookBound is how often a worker may look at its connections within a second before it
// counts as doing nothing else.
const lookBound = 5_000_000

type rates struct {
	second int64
	n      [numberOfRates]int
	looks  atomic.Int64
}

// count counts an act of the worker. If there are too many the run fails, and every act takes
// a while so that the run can end.
func (m *model) count(what rate) {
	m.mu.Lock()
	r := &m.rates
	if s := int64(time.Since(m.began) / time.Second); s != r.second {
		r.second, r.n = s, [numberOfRates]int{}
		r.looks.Store(0)
	}
	r.n[what]++
	tooMany := r.n[what] > rateBounds[what]*len(m.lanes)
	if tooMany {
		m.fail("busy", "%d %s within a second", r.n[what], rateNames[what])
	}
	m.mu.Unlock()
	if tooMany {
		time.Sleep(time.Second)
	}
}

// look counts looks at a connection. A worker that does nothing else cannot be stopped.
func (m *model) look() {
	if m.rates.looks.Add(1) > lookBound {
		panic("model: a worker looks at its connection without end: " + m.plan.String())
	}
}
