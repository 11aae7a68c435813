package job

import (
	"cmp"
	"encoding/hex"
	"strconv"
	"time"

	"propeller/apnsconn"
)

// Parent is what a job remembers of the one that its producer put. A remainder (a new job for
// the tokens of a list that must be sent again) and every buried job have one, as the value of
// the key again.
type Parent struct {
	Job     string    // the id that the producer got
	Seed    Seed      // for the apns-ids
	Put     time.Time // when the producer's job was put, in whole seconds
	Attempt int       // how often its tokens have been tried before

	// Reason is why the job is buried, or will be, unsent, unless an operator kicks it. The
	// fields after it say how its last push ended, and when it was buried.
	Reason string // "" = it is not buried
	Class  apnsconn.Class
	Status int    // 0 = no answer
	APNsID string // "" = none
	At     time.Time
}

const (
	// maxParentJob is enough for "host:port/number", with the longest host name.
	maxParentJob = 280
	// MaxReason bounds a reason, in bytes; ShortReason is the bound where room is short.
	MaxReason, ShortReason = 512, 64
	// MaxParent bounds the member, with a reason that needs no escapes.
	MaxParent = 1 << 10
)

// parseParent reads the value of a job's key again: four members, each once. With a reason
// (bury) there is also a class, and perhaps more.
func parseParent(obj []byte) (*Parent, error) {
	var o Parent
	var given members
	err := eachMember(obj, func(name string, value []byte) error {
		if given.has(name) || !o.set(name, value) {
			return badParent()
		}
		given = append(given, member{name: name})
		return nil
	})
	for _, name := range [...]string{"job", "seed", "put", "attempt", "bury", "class"} {
		if err == nil && !given.has(name) && (o.Reason != "" || name != "bury" && name != "class") {
			err = badParent()
		}
	}
	if o.Reason == "" && len(given) != 4 {
		err = cmp.Or(err, badParent())
	}
	if err != nil {
		return nil, err
	}
	return &o, nil
}

// parentOf reads the parent from a body that may not be a job. It returns the error that
// keeps it from being read, and nil, nil if there is none.
func parentOf(body []byte) (o *Parent, err error) {
	object, err := bodyMembers(body, func(name string, value []byte) (err error) {
		switch {
		case name != "again" || isNull(value):
		case o != nil || !isObject(value):
			err = badParent()
		default:
			o, err = parseParent(value)
		}
		return err
	})
	if !object {
		return nil, nil
	}
	return o, err
}

// Refused says why the job was buried, or put to be buried; "" for any other job.
func (j *Job) Refused() string {
	if j.Parent == nil {
		return ""
	}
	return j.Parent.Reason
}

// set reads one member, and reports whether it is valid.
func (o *Parent) set(name string, value []byte) bool {
	switch name {
	case "job":
		if !isString(value) {
			return false
		}
		o.Job = text(value)
		return len(o.Job) <= maxParentJob
	case "seed":
		if !isString(value) || len(value) != 2+2*len(o.Seed) {
			return false
		}
		_, err := hex.Decode(o.Seed[:], value[1:len(value)-1])
		return err == nil
	case "put":
		s, ok := wholeNumber(value)
		o.Put = time.Unix(s, 0)
		return ok && s <= maxSince
	case "attempt":
		n, ok := wholeNumber(value)
		o.Attempt = int(n)
		return ok && n <= maxAttempt
	case "bury":
		if !isString(value) {
			return false
		}
		o.Reason = text(value)
		return o.Reason != "" && len(o.Reason) <= MaxReason
	case "class":
		for o.Class = range apnsconn.Unknown + 1 {
			if isString(value) && text(value) == o.Class.String() {
				return true
			}
		}
	}
	return o.setEnd(name, value)
}

// setEnd reads a member that says how the last push ended.
func (o *Parent) setEnd(name string, value []byte) bool {
	switch name {
	case "status":
		n, ok := wholeNumber(value)
		o.Status = int(n)
		return ok && n <= 999
	case "apns_id":
		if !isString(value) {
			return false
		}
		o.APNsID = text(value)
		return len(o.APNsID) <= maxAPNsID
	case "at":
		s, ok := wholeNumber(value)
		o.At = time.Unix(s, 0)
		return ok && s <= maxSince
	}
	return false
}

// maxAPNsID is more than a UUID has.
const maxAPNsID = 64

// maxAttempt is far above what retry.min and retry.give_up_after allow.
const maxAttempt = 1 << 20

func badParent() error {
	return &Error{"again", "is not what propeller writes there; leave it out"}
}

// Refuse sets why the job is buried, and the outcome of its push; nil if none was sent.
func (o *Parent) Refuse(why error, outcome *apnsconn.Outcome) {
	o.Reason, o.Class, o.At = cutReason(why.Error(), MaxReason), apnsconn.Rejected, time.Now()
	if outcome != nil {
		o.Class, o.Status, o.APNsID = outcome.Class, outcome.Status, outcome.APNsID
		if len(o.APNsID) > maxAPNsID {
			o.APNsID = ""
		}
	}
}

// append writes o as a JSON object.
func (o *Parent) append(b []byte) []byte {
	b = append(b, `{"job":`...)
	b = appendName(b, o.Job)
	b = append(b, `,"seed":"`...)
	b = hex.AppendEncode(b, o.Seed[:])
	b = append(b, `","put":`...)
	b = strconv.AppendInt(b, o.Put.Unix(), 10)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendInt(b, int64(min(o.Attempt, maxAttempt)), 10)
	if o.Reason != "" {
		b = append(b, `,"bury":`...)
		b = appendName(b, o.Reason)
		b = append(b, `,"class":`...)
		b = appendName(b, o.Class.String())
		if o.Status != 0 {
			b = append(b, `,"status":`...)
			b = strconv.AppendInt(b, int64(o.Status), 10)
		}
		if o.APNsID != "" {
			b = append(b, `,"apns_id":`...)
			b = appendName(b, o.APNsID)
		}
		if !o.At.IsZero() {
			b = append(b, `,"at":`...)
			b = strconv.AppendInt(b, o.At.Unix(), 10)
		}
	}
	return append(b, '}')
}

// RemainderBody returns the job's body with other tokens, and o under the key again. All other
// members stay as they were written.
func RemainderBody(body []byte, tokens []string, o *Parent) []byte {
	b := otherMembers(appendTokens(make([]byte, 0, len(body)+MaxParent), tokens), body)
	b = append(b, `,"again":`...)
	return append(o.append(b), '}')
}
