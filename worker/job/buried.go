package job

import (
	"bytes"
	"cmp"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
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
	j, err := Parse(body, topic, "")
	o := j.Parent
	if o == nil {
		o = new(Parent)
	}
	b := o.Burial(&j)
	switch {
	case o.Reason != "":
	case err != nil:
		b.Reason, b.Class = err.Error(), apnsconn.Rejected.String()
	default:
		b.Reason = NotRecorded
	}
	return b
}

// Burial describes j, with o as its parent.
func (o *Parent) Burial(j *Job) Burial {
	b := Burial{
		Job: o.Job, Seed: o.Seed, Reason: o.Reason, Status: o.Status, APNsID: o.APNsID, At: o.At, Put: o.Put, Tries: o.Attempt,
		Tokens: max(1, len(j.Tokens)), Token: Short(cmp.Or(j.Notification.Token, j.Notification.ChannelID)), Ref: j.Ref,
	}
	if o.Reason != "" {
		b.Class = o.Class.String()
	}
	return b
}

// BuriedBody returns the job's body with o under the key "again", its reason cut to so many
// bytes. It returns nil if the body cannot take it: it is not a JSON object, or the producer
// has used that key.
func BuriedBody(body []byte, o *Parent, limit int) []byte {
	if _, err := parentOf(body); err != nil || !isJSONObject(body) {
		return nil
	}
	members := bytes.TrimRight(AsPut(body), " \t\r\n")
	members = bytes.TrimRight(members[:len(members)-1], " \t\r\n")
	b := append(make([]byte, 0, len(members)+MaxParent), members...)
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, `"again":`...)
	with := *o
	with.Reason = cutReason(o.Reason, limit)
	return append(with.append(b), '}')
}

// AsPut returns a job's body without the key "again" that propeller added. All other
// members stay as they were written.
func AsPut(body []byte) []byte {
	if _, err := parentOf(body); err != nil {
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
	o, err := parentOf(body)
	if err != nil || o == nil || o.Reason == "" {
		return body
	}
	o.Reason, o.Attempt = "", 0
	return BuriedBody(body, o, MaxReason)
}

func cutReason(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "")
}
