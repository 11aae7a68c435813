package job

import (
	"encoding/hex"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"propeller/apnsconn"
)

// Parent is what a job remembers of the one that its producer put. A remainder (a new job for
// the tokens of a list that must be sent again) and every buried job have one, as the value of
// the key "again".
type Parent struct {
	Job     string    // the id that the producer got
	Seed    Seed      // for the apns-ids
	Put     time.Time // when the producer's job was put, in whole seconds
	Attempt int       // how often its tokens have been tried before

	// Reason is why the job is buried, or will be buried unsent unless an operator kicks it. The
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
	// MaxParent bounds the JSON of a Parent, in bytes, with a reason that needs no escapes.
	MaxParent = 1 << 10
)

// parentJSON is a Parent as it is written.
type parentJSON struct {
	Job     string `json:"job"`
	Seed    string `json:"seed"` // hexadecimal
	Put     int64  `json:"put"`  // Unix seconds
	Attempt int    `json:"attempt"`
	// The fields below are set only if Reason is.
	Bury   string `json:"bury,omitzero"`
	Class  string `json:"class,omitzero"`
	Status int    `json:"status,omitzero"`
	APNsID string `json:"apns_id,omitzero"`
	At     int64  `json:"at,omitzero"` // Unix seconds
}

// parseParent reads the value of a job's key "again": no unknown member, each once, and all
// within their bounds. What the daemon has not written itself is an error.
func parseParent(obj []byte) (*Parent, error) {
	var w parentJSON
	err := json.Unmarshal(obj, &w, json.RejectUnknownMembers(true))
	seed, notHex := hex.DecodeString(w.Seed)
	class, known := classOf(w.Class)
	switch {
	case err != nil, notHex != nil, len(seed) != len(Seed{}), len(w.Job) > maxParentJob, len(w.Bury) > MaxReason, len(w.APNsID) > maxAPNsID,
		w.Put < 1, w.Put > maxSince, w.Attempt < 0, w.Attempt > maxAttempt, w.Status < 0, w.Status > 999, w.At < 0, w.At > maxSince,
		w.Bury != "" && !known, w.Bury == "" && (w.Class != "" || w.Status != 0 || w.APNsID != "" || w.At != 0):
		return nil, badParent()
	}
	o := &Parent{
		Job: w.Job, Seed: Seed(seed), Put: time.Unix(w.Put, 0), Attempt: w.Attempt,
		Reason: w.Bury, Class: class, Status: w.Status, APNsID: w.APNsID,
	}
	if w.At != 0 {
		o.At = time.Unix(w.At, 0)
	}
	return o, nil
}

func classOf(name string) (class apnsconn.Class, known bool) {
	for class = range apnsconn.Unknown + 1 {
		if class.String() == name {
			return class, true
		}
	}
	return 0, false
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
	w := parentJSON{Job: o.Job, Seed: hex.EncodeToString(o.Seed[:]), Put: o.Put.Unix(), Attempt: min(o.Attempt, maxAttempt)}
	if o.Reason != "" {
		w.Bury, w.Class, w.Status, w.APNsID = o.Reason, o.Class.String(), o.Status, o.APNsID
		if !o.At.IsZero() {
			w.At = o.At.Unix()
		}
	}
	text, _ := json.Marshal(&w, jsontext.AllowInvalidUTF8(true)) // texts and numbers always marshal
	return append(b, text...)
}

// RemainderBody returns the job's body with other tokens, and o under the key "again". All other
// members stay as they were written.
func RemainderBody(body []byte, tokens []string, o *Parent) []byte {
	b := otherMembers(appendTokens(make([]byte, 0, len(body)+MaxParent), tokens), body)
	b = append(b, `,"again":`...)
	return append(o.append(b), '}')
}
