package apnstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Script decides the answer to a request. It is called from the goroutines of
// several connections at once. With [Options].Record < 0 the request is valid
// only during the call. A script may call methods of [Conn]; while it blocks,
// nothing more is read from its connection.
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

// Fault is a misbehaviour for a part of the requests, read from text by
// [ParseFault].
type Fault struct {
	Answer Answer // what the requests chosen get

	// Which requests: a share of them, every nth, only the nth, or those with this token prefix. Zero
	// values choose all. With several, all must apply; counting and chance concern only the
	// requests with the right token.
	Rate  float64
	Every int
	Nth   int
	Token string
}

// ParseFault reads a fault: words separated by commas, one or more that say
// what happens,
//
//	status=503      this status, with its usual reason
//	reason=NAME     this reason, with its documented status
//	body=TEXT       this body instead of JSON (no comma in it)
//	nobody          no body
//	delay=200ms     the answer comes this much later
//	silence         no answer ever
//	reset[=CODE]    RST_STREAM, REFUSED_STREAM unless another code is named
//	goaway[=NAME]   the answer, then GOAWAY with this reason, Shutdown unless named
//	close           the answer, then the connection is closed in order
//	abort           no answer, the connection is lost
//	streams=1       the answer, then SETTINGS with this many streams
//
// and any that say which requests it affects,
//
//	rate=0.01       this share of them, from 0 to 1
//	every=100       the 100th, the 200th …
//	nth=5           only the 5th
//	token=PREFIX    those whose device token has this prefix
//
// for example "status=503,rate=0.01" or "goaway,every=5000".
func ParseFault(s string) (Fault, error) {
	var f Fault
	acts := false
	for word := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(word), "=")
		chooses, err := f.choose(key, value)
		if !chooses {
			acts = true
			err = f.act(key, value)
		}
		if err != nil {
			return Fault{}, fmt.Errorf("apnstest: fault %q: %q: %w", s, word, err)
		}
	}
	if !acts {
		return Fault{}, fmt.Errorf("apnstest: fault %q: nothing happens: add status=, reason=, silence, reset, goaway, close or abort", s)
	}
	return f, nil
}

// choose reads a word that says which requests. It returns false for others.
func (f *Fault) choose(key, value string) (bool, error) {
	var err error
	switch key {
	case "rate":
		if f.Rate, err = strconv.ParseFloat(value, 64); err != nil || !(f.Rate > 0 && f.Rate <= 1) {
			return true, errors.New("want a number above 0, at most 1")
		}
	case "every":
		f.Every, err = positive(value)
	case "nth":
		f.Nth, err = positive(value)
	case "token":
		if f.Token = strings.ToLower(value); value == "" {
			return true, errors.New("want the beginning of a device token")
		}
	default:
		return false, nil
	}
	return true, err
}

// act reads a word that says what happens.
func (f *Fault) act(key, value string) error {
	var err error
	a := &f.Answer
	switch key {
	case "status":
		if a.Status, err = strconv.Atoi(value); err != nil || a.Status < 200 || a.Status > 599 {
			return errors.New("want a status from 200 to 599")
		}
	case "reason":
		if a.Reason = value; value == "" {
			return errors.New("want a reason, such as BadDeviceToken")
		}
	case "body":
		a.Body = []byte(value)
	case "nobody":
		a.NoBody = true
	case "delay":
		if a.Delay, err = time.ParseDuration(value); err != nil || a.Delay <= 0 {
			return errors.New("want a duration, such as 200ms")
		}
	case "silence":
		a.Silence = true
	case "reset":
		a.Reset, err = errCode(value)
	case "goaway":
		reason := value
		if reason == "" {
			reason = "Shutdown"
		}
		f.then(func(c *Conn) { c.Shutdown(http2.ErrCodeNo, reasonJSON(reason)) })
	case "close":
		f.then((*Conn).CloseTLS)
	case "abort":
		a.Raw = func(*http2.Framer, uint32) {}
		f.then((*Conn).CloseAbruptly)
	case "streams":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return errors.New("want a number of streams")
		}
		f.then(func(c *Conn) { c.MaxStreams(uint32(n)) })
	default:
		return errors.New("not known (status, reason, body, nobody, delay, silence, reset, goaway, close, abort, streams; rate, every, nth, token)")
	}
	return err
}

// then adds something to do after the answer.
func (f *Fault) then(next func(*Conn)) {
	first := f.Answer.Then
	if first == nil {
		f.Answer.Then = next
		return
	}
	f.Answer.Then = func(c *Conn) {
		first(c)
		next(c)
	}
}

func positive(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return 0, errors.New("want a whole number from 1")
	}
	return n, nil
}

// errCode finds an HTTP/2 error code by its name (RFC 9113 section 7).
func errCode(name string) (*http2.ErrCode, error) {
	if name == "" {
		return new(http2.ErrCodeRefusedStream), nil
	}
	for code := http2.ErrCodeNo; code <= http2.ErrCodeHTTP11Required; code++ {
		if strings.EqualFold(code.String(), name) {
			return &code, nil
		}
	}
	return nil, errors.New("want the name of an HTTP/2 error code, such as REFUSED_STREAM")
}

// Script returns a script that gives the requests chosen the fault's answer,
// others 200. The same seed chooses the same requests by their order.
func (f Fault) Script(seed uint64) Script {
	var seen atomic.Int64
	roll := dice(seed)
	return func(r *Request) Answer {
		if !strings.HasPrefix(strings.ToLower(r.Token), f.Token) {
			return Answer{}
		}
		n := seen.Add(1)
		if f.Every > 0 && n%int64(f.Every) != 0 || f.Nth > 0 && n != int64(f.Nth) || f.Rate > 0 && roll() >= f.Rate {
			return Answer{}
		}
		a := f.Answer
		if a.Timestamp.IsZero() && (a.Status == 410 || statusOf(a.Reason) == 410) {
			a.Timestamp = r.At.Add(-time.Hour)
		}
		return a
	}
}

// Faults is a script of several faults: the first that chooses a request
// decides its answer.
func Faults(seed uint64, faults ...Fault) Script {
	scripts := make([]Script, len(faults))
	for i, f := range faults {
		scripts[i] = f.Script(seed + uint64(i))
	}
	return First(scripts...)
}
