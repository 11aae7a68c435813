package job

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"propeller/internal/rawjson"
)

// Envelope is a notification as the HTTP API takes it: a job with the app that
// it is for and the time that it shall wait.
type Envelope struct {
	App   string        // its name; "" when not given, as Topic
	Topic string        // of the app
	Delay time.Duration // before it may be sent, in whole seconds
	later string        // the key that gives Delay; "" = delay
	Job   []byte        // the job, in its shortest form but for its payload

	known bool       // the following are
	keys  rawMembers // the members of Job, in front of fault
	fault error      // of one of them
}

// Parse decodes the envelope's job for its app, as a job that is put now.
func (e *Envelope) Parse(app *Rules, now time.Time) (j Job, err error) {
	if e.known {
		j, err = app.parse(&e.keys, e.fault, e.Job, "")
	} else {
		j, err = app.Parse(e.Job, "")
	}
	if err == nil {
		err = j.inTime(now, e.Delay, cmp.Or(e.later, "delay"))
	}
	return j, err
}

// MaxDelay bounds a delay: nobody means a later time.
const MaxDelay = 365 * 24 * time.Hour

// ParseEnvelope takes the keys app, topic, delay (seconds) and at (Unix seconds, or a
// time of RFC 3339) out of a notification. The rest is not looked at except for
// the key "again", which is the daemon's own. The error is a *Error.
func ParseEnvelope(body []byte, now time.Time) (Envelope, error) {
	e := Envelope{Job: append(make([]byte, 0, len(body)), '{'), known: true}
	var own envelopeKeys
	_, err := bodyMembers(body, func(name string, value []byte) error {
		if name == "again" {
			return badParent()
		}
		key := own.of(name)
		switch {
		case key == nil:
			e.add(name, value)
		case *key != nil:
			return &Error{name, "given twice"}
		default:
			*key = value
		}
		return nil
	})
	if err != nil {
		return Envelope{}, err
	}
	e.Job = append(e.Job, '}')
	return e, e.read(&own, now)
}

// add takes up one of the job's own members, in its shortest form unless it is the payload:
// what is split into several jobs has it in each. A fault of it is told when the job
// is decoded.
func (e *Envelope) add(name string, value []byte) {
	if len(e.Job) > 1 {
		e.Job = append(e.Job, ',')
	}
	e.Job = append(appendName(e.Job, name), ':')
	from := len(e.Job)
	if name == jobKeys[keyPayload].name {
		e.Job = append(e.Job, value...)
	} else {
		e.Job = rawjson.AppendShort(e.Job, value)
	}
	if e.fault == nil {
		e.fault = e.keys.add(name, e.Job[from:])
	}
}

// envelopeKeys are the raw values of the keys that a job has not.
type envelopeKeys struct{ app, topic, delay, at []byte }

// of is the place of a key; nil for those that are the job's.
func (k *envelopeKeys) of(name string) *[]byte {
	switch name {
	case "app":
		return &k.app
	case "topic":
		return &k.topic
	case "delay":
		return &k.delay
	case "at":
		return &k.at
	}
	return nil
}

// read reads the envelope's own keys.
func (e *Envelope) read(given *envelopeKeys, now time.Time) error {
	for _, value := range []*[]byte{&given.app, &given.topic, &given.delay, &given.at} {
		if *value != nil && isNull(*value) {
			*value = nil
		}
	}
	for _, of := range []struct {
		key   string
		value []byte
		to    *string
	}{{"app", given.app, &e.App}, {"topic", given.topic, &e.Topic}} {
		if of.value == nil {
			continue
		}
		if !isString(of.value) {
			return &Error{of.key, kindText[kindString]}
		}
		*of.to = text(of.value)
	}
	delay, at := given.delay, given.at
	switch {
	case delay != nil && at != nil:
		return &Error{"at", "cannot stand beside delay"}
	case delay != nil:
		s, ok := wholeNumber(delay)
		if !ok || s > int64(MaxDelay/time.Second) {
			return &Error{"delay", fmt.Sprintf("must be a whole number of seconds from 0 to %d", int64(MaxDelay/time.Second))}
		}
		e.Delay = time.Duration(s) * time.Second
	case at != nil:
		when, ok := moment(at)
		if s := when.Unix(); ok && s > 0 && s < longest {
			return &Error{"at", fmt.Sprintf("is %d, a time in %d: write Unix time in seconds, or give seconds from now as delay", s, when.UTC().Year())}
		}
		if !ok {
			return &Error{"at", "must be Unix time in seconds, or a time such as 2026-01-02T15:04:05Z"}
		}
		if e.Delay = max(0, when.Sub(now)); e.Delay > MaxDelay {
			return &Error{"at", "is more than a year from now"}
		}
		e.Delay = (e.Delay + time.Second - 1).Truncate(time.Second) // not before
		e.later = "at"
	}
	return nil
}

// moment reads a point in time.
func moment(raw []byte) (time.Time, bool) {
	if s, ok := wholeNumber(raw); ok {
		return time.Unix(s, 0), s <= maxSince
	}
	if !isString(raw) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(text(raw)))
	return t, err == nil
}

// maxParts bounds the jobs that one is split into: each repeats what stands
// beside the tokens, and 240,000 tokens are 250 jobs with a usual payload.
const maxParts = 1000

// Part is one of the jobs that a job is split into.
type Part struct {
	Body   []byte
	Tokens int // that are well-formed; 1 for a job with one, and for a broadcast
}

// Split divides a job that has too many tokens into several jobs of at most
// limit bytes, each with a part of the tokens. j is what Parse returned for
// body. Each token is in exactly one of them. Any other job is returned as
// it is. The error is a *Error.
func Split(body []byte, j *Job, limit int) ([]Part, error) {
	if len(body) <= limit || j.Tokens == nil {
		return []Part{{body, max(1, len(j.Tokens))}}, nil
	}
	tokens := j.Tokens
	for _, bad := range j.Malformed {
		tokens = append(tokens[:len(tokens):len(tokens)], bad.Text) // to be reported as others are
	}
	rest := otherMembers(nil, body)
	if len(rest) > limit/4 { // it stands in each
		return nil, &Error{"", fmt.Sprintf("more than %d bytes beside its tokens, which are too many for one job", limit/4)}
	}
	room := limit - len(rest) - len(`{"tokens":[]}`)
	room -= min(MaxParent, room/16) // for the reason, should it be buried
	good := len(j.Tokens)
	var out []Part
	for len(tokens) > 0 {
		n, size := 0, 0
		for n < len(tokens) && size+len(tokens[n])+3 <= room { // quotes and comma
			size += len(tokens[n]) + 3
			n++
		}
		if n == 0 {
			return nil, &Error{"", fmt.Sprintf("more than %d bytes without its tokens", limit)}
		}
		if len(out) == maxParts {
			return nil, &Error{"", fmt.Sprintf("more than %d jobs of %d bytes, because of what stands in each beside its tokens", maxParts, limit)}
		}
		one := appendTokens(make([]byte, 0, limit), tokens[:n])
		out = append(out, Part{append(append(one, rest...), '}'), min(n, good)})
		good -= min(n, good)
		tokens = tokens[n:]
	}
	return out, nil
}

// appendTokens begins a job with its list of tokens.
func appendTokens(b []byte, tokens []string) []byte {
	b = append(b, `{"tokens":[`...)
	for i, token := range tokens {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendName(b, token)
	}
	return append(b, ']')
}

// otherMembers appends what stands in a job beside its tokens, each member with
// a comma in front. Everything stays as it was written.
func otherMembers(b, body []byte) []byte {
	_ = eachMember(body, func(name string, value []byte) error { // it has no error but f's
		if name != "tokens" && name != "again" && !isNull(value) {
			b = appendMember(b, -1, name, value)
		}
		return nil
	})
	return b
}
