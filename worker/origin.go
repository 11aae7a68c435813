package worker

import (
	"encoding/hex"
	"strconv"
	"time"

	"propeller/apnsconn"
)

// origin is what a rest job remembers of the job that it is the rest of: see
// split. It is the value of the job's key of that name.
type origin struct {
	job     string    // the first job's id, which its producer knows
	seed    seed      // of the apns-ids
	put     time.Time // when the first job was put, in whole seconds
	attempt int       // how often its tokens have been tried before

	// bury is why the job is to be buried unsent, unless somebody has kicked it:
	// its pushes have failed for good. Their last outcome was of that class.
	bury  string // "" = it is not
	class apnsconn.Class
}

const (
	// maxOriginJob is enough for "host:port/number", with the longest host name.
	maxOriginJob = 280
	// maxBury bounds a reason, in bytes.
	maxBury = 512
)

// parseOrigin reads the value of a job's key again: four members, each once, or
// six with a reason to bury.
func parseOrigin(obj []byte) (*origin, error) {
	var o origin
	var given members
	err := eachMember(obj, func(name string, value []byte) error {
		if given.has(name) || !o.set(name, value) {
			return badOrigin()
		}
		given = append(given, member{name, value})
		return nil
	})
	want := 4
	if o.bury != "" {
		want += 2
	}
	if err == nil && len(given) != want {
		err = badOrigin()
	}
	if err != nil {
		return nil, err
	}
	return &o, nil
}

// Refused is why the job was put to be buried, as the rest of one whose other
// tokens fared better; "" for any other job.
func (j *Job) Refused() string {
	if j.origin == nil {
		return ""
	}
	return j.origin.bury
}

// set takes one member, and reports whether it is as it should be.
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
	return false
}

// maxAttempt is far above what retry.min and retry.give_up_after allow.
const maxAttempt = 1 << 20

func badOrigin() error {
	return &JobError{"again", "is not what propeller writes there; leave it out"}
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
	b = strconv.AppendInt(b, int64(o.attempt), 10)
	if o.bury != "" {
		b = append(b, `,"bury":`...)
		b = appendName(b, o.bury)
		b = append(b, `,"class":`...)
		b = appendName(b, o.class.String())
	}
	return append(b, '}')
}

// restBody is the job body with other tokens, and o for again. Everything else stays
// as it was written.
func restBody(body []byte, tokens []string, o *origin) []byte {
	b := appendTokens(make([]byte, 0, len(body)+128), tokens)
	b = append(b, `,"again":`...)
	b = o.append(b)
	return append(otherMembers(b, body), '}')
}
