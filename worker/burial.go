package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
	"propeller/queue"
)

// Burial is what a buried job says about itself.
type Burial struct {
	Job    string // the id its producer got, as it says; "" if unknown
	Seed   Seed   // of the producer's job; zero if unknown
	Reason string // APNs', with the status, or ours in words
	Class  string // of the last outcome; "" if unknown
	Status int    // APNs' HTTP status; 0 without an answer
	APNsID string
	At     time.Time // when it was buried; zero if unknown
	Put    time.Time // when the producer's job was put; zero if unknown
	Tries  int       // how often its tokens were tried
	Tokens int       // how many tokens it has; 1 for a channel
	Token  string    // the first 8 characters of the first token, or of the channel's id
	Ref    string
}

// NotRecorded is the reason of a buried job that carries none.
const NotRecorded = "(not recorded)"

// BurialOf reads a buried job's body. If it carries no reason but can never work, that is
// the reason.
func BurialOf(body []byte, topic string) Burial {
	j, err := ParseJob(body, topic, "")
	o := j.origin
	if o == nil {
		o = new(origin)
	}
	b := o.burial(&j)
	switch {
	case o.bury != "":
	case err != nil:
		b.Reason, b.Class = err.Error(), apnsconn.Rejected.String()
	default:
		b.Reason = NotRecorded
	}
	return b
}

// burial describes j, with o as its origin.
func (o *origin) burial(j *Job) Burial {
	b := Burial{
		Job: o.job, Seed: o.seed, Reason: o.bury, Status: o.status, APNsID: o.apnsID, At: o.at, Put: o.put, Tries: o.attempt,
		Tokens: max(1, len(j.Tokens)), Token: shortToken(&j.Notification), Ref: j.Ref,
	}
	if o.bury != "" {
		b.Class = o.class.String()
	}
	return b
}

// buriedBody returns the job's body with o under the key again. It returns nil if the body
// cannot take it: it is not a JSON object, or the producer has used that key.
func buriedBody(body []byte, o *origin) []byte {
	if _, err := originOf(body); err != nil || !isJSONObject(body) {
		return nil
	}
	members := bytes.TrimRight(AsPut(body), " \t\r\n")
	members = bytes.TrimRight(members[:len(members)-1], " \t\r\n")
	b := append(make([]byte, 0, len(members)+maxAgain), members...)
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, `"again":`...)
	return append(o.append(b), '}')
}

// AsPut returns a job's body without the key again that propeller added. All other
// members stay as they were written.
func AsPut(body []byte) []byte {
	if _, err := originOf(body); err != nil {
		return body
	}
	const name = `,"again":`
	if i := bytes.LastIndex(body, []byte(name)); i > 0 { // propeller writes it as the last member
		rest := append(body[:i:i], '}')
		if rawjson.Valid(body) && rawjson.Valid(rest) && rawjson.Valid(body[i+len(name):len(body)-1]) {
			return rest
		}
	}
	if !isJSONObject(body) {
		return body
	}
	out, found := []byte{'{'}, false
	_ = eachMember(body, func(name string, value []byte) error { // it has no error but f's
		if found = found || name == "again"; name != "again" {
			out = appendMember(out, 1, name, value)
		}
		return nil
	})
	if !found {
		return body
	}
	return append(out, '}')
}

// Kicked returns a buried job's body without its reason, for a queue that does not know
// that the job was kicked and would have it buried again.
func Kicked(body []byte) []byte {
	o, err := originOf(body)
	if err != nil || o == nil || o.bury == "" {
		return body
	}
	o.bury, o.attempt = "", 0
	return buriedBody(body, o)
}

// origin returns what a job made of this one has to remember.
func (t *task) origin() origin {
	attempt, age, _ := t.history()
	o := origin{job: t.id, seed: t.made(), put: t.r.cfg.Wall().Add(-age), attempt: min(attempt, maxAttempt)}
	if first := t.decoded.origin; first != nil {
		o.job, o.put = first.job, first.put
	}
	return o
}

// buryFor sets the reason, and the outcome of p; p is nil if no push was sent.
func (o *origin) buryFor(why error, p *push) {
	o.bury, o.class, o.at = cutReason(why.Error(), maxBury), apnsconn.Rejected, time.Now()
	if p != nil {
		o.class, o.status, o.apnsID = p.outcome.Class, p.outcome.Status, p.outcome.APNsID
		if len(o.apnsID) > maxAPNsID {
			o.apnsID = ""
		}
	}
}

func cutReason(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "")
}

// bury buries the job with o in it. If the queue has no room for that, it shortens the
// reason, and then leaves the body as it is.
func (t *task) bury(o *origin) (err error) {
	for _, limit := range [...]int{maxBury, shortBury} {
		with := *o
		with.bury = cutReason(o.bury, limit)
		body := buriedBody(t.body, &with)
		if body == nil {
			break
		}
		if err = t.buryAs(body); !errors.Is(err, queue.ErrRejected) {
			return err
		}
	}
	return t.buryAs(nil)
}

// buryAs repeats the burial while the queue refuses it. Giving the job back instead would
// report its pushes again.
func (t *task) buryAs(body []byte) (err error) {
	stored := t.store(burials(), func(ctx context.Context) error {
		if err = t.job.Bury(ctx, body); errors.Is(err, queue.ErrUnavailable) {
			return err
		}
		return nil
	})
	return cmp.Or(stored, err)
}
