package apnstest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Fault is a misbehaviour for a part of the requests, read from text by
// [ParseFault].
type Fault struct {
	Answer Answer // what the requests chosen get

	// Which requests: a share of them, every nth, only the nth, those whose
	// token begins so. Zero values choose all. Several must hold together; requests are
	// counted and thrown dice for among those with the right token.
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
//	delay=200ms     the answer comes so much later
//	silence         no answer ever
//	reset[=CODE]    RST_STREAM, REFUSED_STREAM unless another code is named
//	goaway[=NAME]   the answer, then GOAWAY with this reason, Shutdown unless named
//	close           the answer, then the connection is closed in order
//	abort           no answer, the connection is lost
//	streams=1       the answer, then SETTINGS with this many streams
//
// and any that say to which requests,
//
//	rate=0.01       this share of them, from 0 to 1
//	every=100       the 100th, the 200th …
//	nth=5           the 5th alone
//	token=PREFIX    those whose device token begins so
//
// for instance "status=503,rate=0.01" or "goaway,every=5000".
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
