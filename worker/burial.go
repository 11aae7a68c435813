package worker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// Burial is what a buried job says of itself.
type Burial struct {
	Job    string // the first id, which its producer was given; "" when it does not say
	Reason string // APNs', with the status, or ours in words
	Class  string // of the last outcome; "" when it does not say
	Status int    // APNs' HTTP status; 0 when there was no answer
	APNsID string
	At     time.Time // when it was buried; zero when it does not say, as the next
	Put    time.Time // when the first job was put
	Tries  int       // of its tokens
	Tokens int       // how many it has, 1 for a channel
	Token  string    // of the first, or of the channel's id, the first 8 characters
	Ref    string
}

// NotRecorded is the reason of a buried job that does not say why.
const NotRecorded = "(not recorded)"

// BurialOf reads a buried job's body. One that can never work and says nothing
// was buried for that.
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

// burial is what j says of itself with o in it.
func (o *origin) burial(j *Job) Burial {
	b := Burial{
		Job: o.job, Reason: o.bury, Status: o.status, APNsID: o.apnsID, At: o.at, Put: o.put, Tries: o.attempt,
		Tokens: max(1, len(j.Tokens)), Token: shortToken(&j.Notification), Ref: j.Ref,
	}
	if o.bury != "" {
		b.Class = o.class.String()
	}
	return b
}

// buriedBody is a job's body with o for again; nil when it has no place for it:
// it is no JSON object, or somebody else has written that key.
func buriedBody(body []byte, o *origin) []byte {
	if _, err := originOf(body); err != nil || checkObject(body) != nil {
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

// AsPut is a job's body without what propeller has written under again. What else
// stands there stays as it was written.
func AsPut(body []byte) []byte {
	if _, err := originOf(body); err != nil {
		return body
	}
	const name = `,"again":`
	if i := bytes.LastIndex(body, []byte(name)); i > 0 { // as we write it, it is the last
		rest := append(body[:i:i], '}')
		if json.Valid(body) && json.Valid(rest) && json.Valid(body[i+len(name):len(body)-1]) {
			return rest
		}
	}
	if checkObject(body) != nil {
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

// Kicked is a buried job's body without what would have it buried again, for a queue
// that does not know that it was kicked.
func Kicked(body []byte) []byte {
	o, err := originOf(body)
	if err != nil || o == nil || o.bury == "" {
		return body
	}
	o.bury, o.attempt = "", 0
	return buriedBody(body, o)
}

// origin is what a job that is made of this one has to remember.
func (t *task) origin() origin {
	attempt, age, _ := t.history()
	o := origin{job: t.id, seed: t.decoded.seed, put: t.r.cfg.Wall().Add(-age), attempt: min(attempt, maxAttempt)}
	if first := t.decoded.origin; first != nil {
		o.job, o.seed, o.put = first.job, first.seed, first.put
	} else if o.seed == (seed{}) {
		o.seed = seedOf(o.job, t.body)
	}
	return o
}

// buryFor makes o that of a job that is buried for the reason why. p is a push
// that has ended so; nil: none was sent.
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

// bury sets the job aside with o in it: with a short reason, or as it is, where
// the queue has no room for more.
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

// buryAs waits while the queue refuses: what has been reported is not to be
// reported again.
func (t *task) buryAs(body []byte) (err error) {
	stored := t.store(burials(), func(ctx context.Context) error {
		if err = t.job.Bury(ctx, body); errors.Is(err, queue.ErrUnavailable) {
			return err
		}
		return nil
	})
	return cmp.Or(stored, err)
}
