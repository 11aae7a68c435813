package apnstest

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Script decides the answer to a request. It is called from the goroutines of
// several connections at once. With [Options].Record < 0 the request is only
// valid during the call. A script may call methods of [Conn]; one that blocks
// holds its connection's reading up.
type Script func(*Request) Answer

// Always gives every request the same answer.
func Always(a Answer) Script { return func(*Request) Answer { return a } }

// ByToken gives requests for the tokens in m the answers there, others 200.
// Tokens are compared in lower case.
func ByToken(m map[string]Answer) Script {
	lower := make(map[string]Answer, len(m))
	for token, a := range m {
		lower[strings.ToLower(token)] = a
	}
	return func(r *Request) Answer { return lower[strings.ToLower(r.Token)] }
}

// Nth gives the nth request that the script sees (from 1) the answer a,
// others 200.
func Nth(n int, a Answer) Script {
	var seen atomic.Int64
	return func(*Request) Answer {
		if seen.Add(1) == int64(n) {
			return a
		}
		return Answer{}
	}
}

// Every gives the nth, 2nth, … request the answer a, others 200.
func Every(n int, a Answer) Script {
	var seen atomic.Int64
	return func(*Request) Answer {
		if n > 0 && seen.Add(1)%int64(n) == 0 {
			return a
		}
		return Answer{}
	}
}

// Seq gives the first requests the answers in their order, later ones 200.
func Seq(answers ...Answer) Script {
	var seen atomic.Int64
	return func(*Request) Answer {
		if i := seen.Add(1) - 1; i < int64(len(answers)) {
			return answers[i]
		}
		return Answer{}
	}
}

// Sometimes gives a share of the requests, rate from 0 to 1, the answer a,
// others 200. The same seed chooses the same requests by their order.
func Sometimes(rate float64, seed uint64, a Answer) Script {
	roll := dice(seed)
	return func(*Request) Answer {
		if roll() < rate {
			return a
		}
		return Answer{}
	}
}

// dice returns a source of numbers from 0 to 1, the same for the same seed.
func dice(seed uint64) func() float64 {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 0))
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Float64()
	}
}

// First asks the scripts in order and takes the first answer that is not the
// zero Answer. Those after it do not see the request.
func First(scripts ...Script) Script {
	return func(r *Request) Answer {
		for _, s := range scripts {
			if a := s(r); !a.IsZero() {
				return a
			}
		}
		return Answer{}
	}
}

// TokenCodes lets the end of the device token choose the answer, for clients
// that cannot be scripted: a token that ends in fa17 and four digits gets
//
//	fa170400 … fa170599   that status with its usual reason (410 with a timestamp)
//	fa170000              silence
//	fa170001              RST_STREAM REFUSED_STREAM
//	fa170002              RST_STREAM INTERNAL_ERROR
//	fa170003              200, then GOAWAY with {"reason":"Shutdown"}
//	fa170004              the connection lost without an answer
//	fa171nnn              200 after nnn × 10 ms
//
// and any other token 200.
func TokenCodes(r *Request) Answer {
	code, ok := tokenCode(r.Token)
	switch {
	case !ok:
		return Answer{}
	case code >= 400 && code <= 599:
		a := Answer{Status: code}
		if code == 410 {
			a.Timestamp = r.At.Add(-time.Hour)
		}
		return a
	case code >= 1000 && code <= 1999:
		return Answer{Delay: time.Duration(code-1000) * 10 * time.Millisecond}
	}
	switch code {
	case 0:
		return Answer{Silence: true}
	case 1:
		return Answer{Reset: new(http2.ErrCodeRefusedStream)}
	case 2:
		return Answer{Reset: new(http2.ErrCodeInternal)}
	case 3:
		return Answer{Then: func(c *Conn) { c.Shutdown(http2.ErrCodeNo, reasonJSON("Shutdown")) }}
	case 4:
		return Answer{Raw: func(*http2.Framer, uint32) {}, Then: (*Conn).CloseAbruptly}
	}
	return Answer{}
}

// tokenCode reads the four digits after a final "fa17".
func tokenCode(token string) (int, bool) {
	const mark, digits = "fa17", 4
	i := len(token) - len(mark) - digits
	if i < 0 || !strings.EqualFold(token[i:i+len(mark)], mark) {
		return 0, false
	}
	n, err := strconv.ParseUint(token[len(token)-digits:], 10, 16)
	return int(n), err == nil
}

// reasonJSON is the debug data of a GOAWAY as APNs sends it.
func reasonJSON(reason string) []byte { return []byte(`{"reason":"` + reason + `"}`) }
