package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// ttr is the time to run of the jobs: what docs/operations.md asks for.
const ttr = 60 * time.Second

// usualDelay is the longest delay of a job, in seconds.
const usualDelay = 4

// producer puts jobs of one app, one after another.
type producer struct {
	engine engine
	app    int
	rng    *rand.Rand
	ledger *ledger
	every  time.Duration // mean pause between two jobs
	delay  int           // of delayed jobs, in seconds and at most; 0: usualDelay

	conn client
}

func (p *producer) run(ctx context.Context) {
	defer p.drop()
	for ctx.Err() == nil {
		// Lulls: the tube runs empty, and a list comes next.
		if p.rng.IntN(150) == 0 {
			sleep(ctx, time.Duration(p.rng.Int64N(int64(4*time.Second))))
			if p.conn != nil {
				p.put(plain, true, []fate{good, good, good})
			}
		}
		// Bursts: sometimes nothing, sometimes a hundred at once.
		burst := 1
		if p.rng.IntN(200) == 0 {
			burst = 100
		}
		for range burst {
			if !p.putOne(ctx) {
				return
			}
		}
		sleep(ctx, time.Duration(p.rng.Int64N(int64(2*p.every)*int64(burst))))
	}
}

// putOne puts one job. It reports false when no more can be put.
func (p *producer) putOne(ctx context.Context) bool {
	if p.conn == nil && !p.dial(ctx) {
		return true
	}
	k, many, fates := p.shape()
	return p.put(k, many, fates)
}

// beacon puts a job that can only be delivered, and reports whether the queue has it.
func (p *producer) beacon(ctx context.Context) bool {
	if p.conn == nil && !p.dial(ctx) {
		return false
	}
	p.put(plain, false, []fate{good})
	return p.conn != nil
}

// put puts a job. It reports false when no more can be put.
func (p *producer) put(k kind, many bool, fates []fate) bool {
	i, first, ok := p.ledger.add(p.app, k, many, fates)
	if !ok {
		return false
	}
	body, delay := p.job(first, k, many, fates)
	id, err := p.conn.put(appAt(p.app).tube, body, delay)
	if err != nil {
		p.drop() // it may have been stored
		return true
	}
	p.ledger.accepted(i, id, delay)
	return true
}

func (p *producer) dial(ctx context.Context) bool {
	conn, err := p.engine.dial()
	if err != nil {
		sleep(ctx, 50*time.Millisecond)
		return false
	}
	p.conn = conn
	return true
}

func (p *producer) drop() {
	if p.conn != nil {
		p.conn.close()
		p.conn = nil
	}
}

// share is one of several possibilities and how many of 1000 it gets.
type share[T any] struct {
	of       T
	perMille int
}

// draw throws the dice for one of shares, which make up 1000.
func draw[T any](rng *rand.Rand, shares []share[T]) T {
	n := rng.IntN(1000)
	for _, s := range shares {
		if n -= s.perMille; n < 0 {
			return s.of
		}
	}
	return shares[0].of
}

func kinds() []share[kind] {
	return []share[kind]{{plain, 700}, {delayed, 150}, {timed, 45}, {dated, 45}, {misspelt, 20}, {malformed, 20}, {oversize, 20}}
}

// singleFates are those of a job's only token.
func singleFates() []share[fate] {
	return []share[fate]{{good, 915}, {dead, 20}, {alien, 10}, {bad, 10}, {reborn, 20}, {deformed, 5}, {grave, 20}}
}

// listFates are those of the tokens of a list. Aliens are few, so that no job
// looks like a wrong environment.
func listFates() []share[fate] {
	return []share[fate]{{good, 930}, {dead, 25}, {alien, 5}, {bad, 15}, {reborn, 15}, {deformed, 10}}
}

// listShare is how many of 1000 jobs have a list of tokens, maxList how long
// such a list may be.
const (
	listShare = 120
	maxList   = 200
)

// shape throws the dice for what a job shall be.
func (p *producer) shape() (k kind, many bool, fates []fate) {
	k = draw(p.rng, kinds())
	if k == malformed {
		return k, false, []fate{good}
	}
	if p.rng.IntN(1000) >= listShare {
		return k, false, []fate{draw(p.rng, singleFates())}
	}
	if appAt(p.app).feedback == "" && k.mayExpire() {
		k = plain // the log names one token of a job that has expired
	}
	short := p.rng.Float64() // many short lists, few long ones
	fates = make([]fate, 2+int(math.Pow(short, 6)*(maxList-1)))
	switch p.rng.IntN(20) {
	case 0:
		for i := range fates {
			fates[i] = deformed
		}
	case 1, 2: // all are good
	default:
		for i := range fates {
			fates[i] = draw(p.rng, listFates())
		}
	}
	return k, true, fates
}

// maxPayload is APNs' limit for a payload.
const maxPayload = 4096

// job writes the job whose pushes are numbered from first on.
func (p *producer) job(first uint32, k kind, many bool, fates []fate) (body []byte, delay time.Duration) {
	if k == malformed {
		return fmt.Appendf(nil, "number %d is no JSON", first), 0
	}
	j := map[string]any{"title": fmt.Sprintf("push %d", first)}
	named := p.rng.IntN(2) == 0 // needs a ref
	for _, f := range fates {
		switch f {
		case reborn:
			j["token_since"] = time.Now().Unix()
		case deformed, grave: // cannot be told by the token
			named = true
		}
	}
	if named {
		j["ref"] = reference(first)
	}
	if many {
		j["tokens"] = p.list(first, fates)
	} else {
		p.single(j, first, fates[0])
	}
	switch k {
	case delayed:
		delay = time.Duration(1+p.rng.IntN(cmp.Or(p.delay, usualDelay))) * time.Second
	case timed:
		j["ttl"] = 1 + p.rng.IntN(30)
	case dated:
		j["expiration"] = time.Now().Unix() + 1 + int64(p.rng.IntN(30))
	case misspelt:
		j["tilte"] = "x"
	case oversize:
		j["body"] = strings.Repeat("x", maxPayload)
	}
	body, err := json.Marshal(j)
	if err != nil { // strings and numbers
		panic(err)
	}
	return body, delay
}

func (p *producer) single(j map[string]any, n uint32, f fate) {
	j["token"] = token(n, f)
	if f == grave {
		j["token"] = graveToken(p.app)
	}
	if f == grave || p.rng.IntN(10) == 0 {
		j["id"] = apnsID(p.rng.Uint32(), n)
	}
}

// list is the tokens of a job; at times one is given twice.
func (p *producer) list(first uint32, fates []fate) []string {
	out := make([]string, len(fates), len(fates)+1)
	for i, f := range fates {
		out[i] = token(first+uint32(i), f)
	}
	if p.rng.IntN(10) == 0 {
		out = append(out, out[p.rng.IntN(len(out))])
	}
	return out
}
