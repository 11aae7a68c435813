package worker

import (
	"cmp"
	"encoding/hex"
	"strconv"
	"time"

	"propeller/apnsconn"
)

// origin is what a job remembers of the one that its producer put. The rest of a list (see
// split) and every buried job have one, as the value of the key again.
type origin struct {
	job     string    // the id that the producer got
	seed    Seed      // for the apns-ids
	put     time.Time // when the producer's job was put, in whole seconds
	attempt int       // how often its tokens have been tried before

	// bury is why the job is buried, or will be, unsent, unless an operator kicks it. The
	// fields after it say how its last push ended, and when it was buried.
	bury   string // "" = it is not buried
	class  apnsconn.Class
	status int    // 0 = no answer
	apnsID string // "" = none
	at     time.Time
}

const (
	// maxOriginJob is enough for "host:port/number", with the longest host name.
	maxOriginJob = 280
	// maxBury bounds a reason, in bytes; shortBury is the bound where room is short.
	maxBury, shortBury = 512, 64
	// maxAgain bounds the member, with a reason that needs no escapes.
	maxAgain = 1 << 10
)

// parseOrigin reads the value of a job's key again: four members, each once. With a reason
// (bury) there is also a class, and perhaps more.
func parseOrigin(obj []byte) (*origin, error) {
	var o origin
	var given members
	err := eachMember(obj, func(name string, value []byte) error {
		if given.has(name) || !o.set(name, value) {
			return badOrigin()
		}
		given = append(given, member{name: name})
		return nil
	})
	for _, name := range [...]string{"job", "seed", "put", "attempt", "bury", "class"} {
		if err == nil && !given.has(name) && (o.bury != "" || name != "bury" && name != "class") {
			err = badOrigin()
		}
	}
	if o.bury == "" && len(given) != 4 {
		err = cmp.Or(err, badOrigin())
	}
	if err != nil {
		return nil, err
	}
	return &o, nil
}

// originOf reads the origin from a body that may not be a job. It returns the error that
// keeps it from being read, and nil, nil if there is none.
func originOf(body []byte) (o *origin, err error) {
	object, err := bodyMembers(body, func(name string, value []byte) (err error) {
		switch {
		case name != "again" || isNull(value):
		case o != nil || !isObject(value):
			err = badOrigin()
		default:
			o, err = parseOrigin(value)
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
	if j.origin == nil {
		return ""
	}
	return j.origin.bury
}

// set reads one member, and reports whether it is valid.
func (o *origin) set(name string, value []byte) bool {
	switch name {
	case "job":
		if !isString(value) {
			return false
		}
		o.job = text(value)
		return len(o.job) <= maxOriginJob
	case "seed":
		if !isString(value) || len(value) != 2+2*len(o.seed) {
			return false
		}
		_, err := hex.Decode(o.seed[:], value[1:len(value)-1])
		return err == nil
	case "put":
		s, ok := wholeNumber(value)
		o.put = time.Unix(s, 0)
		return ok && s <= maxSince
	case "attempt":
		n, ok := wholeNumber(value)
		o.attempt = int(n)
		return ok && n <= maxAttempt
	case "bury":
		if !isString(value) {
			return false
		}
		o.bury = text(value)
		return o.bury != "" && len(o.bury) <= maxBury
	case "class":
		for o.class = range apnsconn.Unknown + 1 {
			if isString(value) && text(value) == o.class.String() {
				return true
			}
		}
	}
	return o.setEnd(name, value)
}

// setEnd reads a member that says how the last push ended.
func (o *origin) setEnd(name string, value []byte) bool {
	switch name {
	case "status":
		n, ok := wholeNumber(value)
		o.status = int(n)
		return ok && n <= 999
	case "apns_id":
		if !isString(value) {
			return false
		}
		o.apnsID = text(value)
		return len(o.apnsID) <= maxAPNsID
	case "at":
		s, ok := wholeNumber(value)
		o.at = time.Unix(s, 0)
		return ok && s <= maxSince
	}
	return false
}

// maxAPNsID is more than a UUID has.
const maxAPNsID = 64

// maxAttempt is far above what retry.min and retry.give_up_after allow.
const maxAttempt = 1 << 20

func badOrigin() error {
	return &JobError{"again", "is not what propeller writes there; leave it out"}
}

// Refuse sets why the job is buried, and the outcome of its push; nil if none was sent.
func (o *origin) Refuse(why error, outcome *apnsconn.Outcome) {
	o.bury, o.class, o.at = cutReason(why.Error(), maxBury), apnsconn.Rejected, time.Now()
	if outcome != nil {
		o.class, o.status, o.apnsID = outcome.Class, outcome.Status, outcome.APNsID
		if len(o.apnsID) > maxAPNsID {
			o.apnsID = ""
		}
	}
}

// append writes o as a JSON object.
func (o *origin) append(b []byte) []byte {
	b = append(b, `{"job":`...)
	b = appendName(b, o.job)
	b = append(b, `,"seed":"`...)
	b = hex.AppendEncode(b, o.seed[:])
	b = append(b, `","put":`...)
	b = strconv.AppendInt(b, o.put.Unix(), 10)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendInt(b, int64(min(o.attempt, maxAttempt)), 10)
	if o.bury != "" {
		b = append(b, `,"bury":`...)
		b = appendName(b, o.bury)
		b = append(b, `,"class":`...)
		b = appendName(b, o.class.String())
		if o.status != 0 {
			b = append(b, `,"status":`...)
			b = strconv.AppendInt(b, int64(o.status), 10)
		}
		if o.apnsID != "" {
			b = append(b, `,"apns_id":`...)
			b = appendName(b, o.apnsID)
		}
		if !o.at.IsZero() {
			b = append(b, `,"at":`...)
			b = strconv.AppendInt(b, o.at.Unix(), 10)
		}
	}
	return append(b, '}')
}

// restBody returns the job's body with other tokens, and o under the key again. All other
// members stay as they were written.
func restBody(body []byte, tokens []string, o *origin) []byte {
	b := otherMembers(appendTokens(make([]byte, 0, len(body)+maxAgain), tokens), body)
	b = append(b, `,"again":`...)
	return append(o.append(b), '}')
}
