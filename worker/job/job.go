// Package job is the JSON of a job: it decodes what a producer wrote, assembles the payload, checks
// it by the rules of its app, splits long lists, and reads and writes what propeller adds to a
// job that goes back into the queue. docs/job-format.md describes the format.
package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// Job is one decoded job: what to push, and what its producer wants to happen
// around it. docs/job-format.md describes every key.
type Job struct {
	// Notification is the push. Of a job with several tokens it is the push to
	// the first of them.
	Notification  apnsconn.Notification
	Tokens        []string      // of a job with "tokens": the well-formed ones, each once, in lower case; else nil
	Malformed     []BadToken    // the others of that list, the first maxMalformed
	MoreMalformed int           // how many more of them there are, each as often as it stands there
	TokenSince    time.Time     // when the app registered its tokens; zero = not said
	TTL           time.Duration // from when the job was put; 0 = none
	Ref           string        // the producer's own id; never sent

	DefaultExpiration bool // the notification's expiration is the app's default

	Seed   Seed    // of the apns-ids, unless the job brings its own
	Parent *Parent // nil unless the job is a remainder or was buried
	extra  error   // of the first key that is ignored; nil if none is
}

// Error says which key of a job can never work, and why.
type Error struct {
	Key string // as written in the job, shortened if no job has such a key; "" for the job as a whole
	Why string
}

func (e *Error) Error() string {
	if e.Key == "" {
		return "job: " + e.Why
	}
	if strings.HasPrefix(e.Why, unknown) { // the key may be any text
		return fmt.Sprintf("job: %q: %s", e.Key, e.Why)
	}
	return fmt.Sprintf("job: %s: %s", e.Key, e.Why)
}

const (
	// maxRef bounds what is carried through logs and feedback for the producer.
	maxRef = 256
	// maxTTL is where seconds stop fitting a time.Duration; nobody waits so long.
	maxTTL = int64(100 * 365 * 24 * time.Hour / time.Second)
	// maxSince is the last second of the year 9999: what is above was meant in
	// milliseconds.
	maxSince = 253402300799
)

// Parse is Rules.Parse for an app of which only the topic is known.
func Parse(body []byte, topic, jobID string) (Job, error) {
	app := Rules{Topic: topic}
	return app.Parse(body, jobID)
}

// Parse decodes a job of the app. jobID is the queue's id of it, from which the apns-id is
// derived when the job brings none: it is the same on every try. The error is a *Error:
// the job can never work; the Job then has as much of its address, ref and parent as could be
// read.
func (r *Rules) Parse(body []byte, jobID string) (Job, error) {
	var g rawMembers
	err := g.read(body)
	return r.parse(&g, err, body, jobID)
}

// parse is Parse of the members that were read before a fault.
func (r *Rules) parse(g *rawMembers, err error, body []byte, jobID string) (j Job, _ error) {
	if err == nil && !r.ExtraKeys {
		err = g.extra
	}
	if err == nil {
		err = j.read(&g.raw, r, body, jobID)
	}
	if err != nil {
		return j.partial(body), err
	}
	j.extra = g.extra
	return j, nil
}

func (j *Job) read(raw *rawJob, app *Rules, body []byte, jobID string) error {
	if raw[keyRef] != nil {
		if j.Ref = text(raw[keyRef]); len(j.Ref) > maxRef {
			return &Error{"ref", fmt.Sprintf("has %d bytes, at most %d are allowed", len(j.Ref), maxRef)}
		}
	}
	n := &j.Notification
	err := j.address(raw)
	if err != nil {
		return err
	}
	var inferred string
	if n.Payload, inferred, err = payload(raw, app.Topic); err != nil {
		return err
	}
	if err := j.headers(raw, app, inferred); err != nil {
		return err
	}
	if err := j.identify(raw, jobID, body); err != nil {
		return err
	}
	if len(n.Payload) > apnsconn.MaxPayload && len(n.Payload) > n.MaxPayload() {
		n.Payload = rawjson.Short(n.Payload)
	}
	if err := n.Validate(); err != nil {
		return asError(err)
	}
	return app.permits(n)
}

// address fills in where the push goes: to a device, to several, or to a channel.
func (j *Job) address(raw *rawJob) error {
	if err := j.tokenSince(raw); err != nil {
		return err
	}
	n := &j.Notification
	token, tokens, channel := raw[keyToken], raw[keyTokens], raw[keyChannelID]
	switch {
	case token == nil && tokens == nil && channel == nil:
		return &Error{"token", "missing"}
	case channel != nil && (token != nil || tokens != nil):
		return &Error{"channel_id", "cannot stand beside token or tokens: a push goes to a device or to a channel"}
	case token != nil && tokens != nil:
		return &Error{"tokens", "cannot stand beside token: put it into the list"}
	case channel != nil:
		n.ChannelID = text(channel)
		if n.ChannelID == "" {
			return &Error{"channel_id", "is empty"}
		}
		return nil
	case tokens != nil:
		return j.list(tokens)
	}
	given, err := apnsconn.NormalizeToken(text(token))
	if err != nil {
		return asError(err)
	}
	n.Token = given
	return nil
}

// tokenSince reads when the app registered its tokens.
func (j *Job) tokenSince(raw *rawJob) error {
	if raw[keyTokenSince] == nil {
		return nil
	}
	s, _ := wholeNumber(raw[keyTokenSince])
	switch {
	case raw[keyChannelID] != nil:
		return &Error{"token_since", "cannot stand beside channel_id: it says when a device token was registered"}
	case s > maxSince:
		return &Error{"token_since", "must be Unix time in seconds"}
	case s > 0:
		j.TokenSince = time.Unix(s, 0)
	}
	return nil
}

// headers fills what is sent beside the payload, whose push type is the inferred one
// unless the job says.
func (j *Job) headers(raw *rawJob, app *Rules, inferred string) error {
	n := &j.Notification
	for _, h := range [...]struct {
		key key
		dst *string
	}{{keyPushType, &n.PushType}, {keyCollapseID, &n.CollapseID}, {keyID, &n.ID}} {
		if raw[h.key] != nil {
			*h.dst = text(raw[h.key])
		}
	}
	if raw[keyPriority] != nil {
		p, _ := wholeNumber(raw[keyPriority])
		if p == 0 || p > 10 {
			return &Error{"priority", badPriority}
		}
		n.Priority = int(p)
	}
	if raw[keyExpiration] != nil {
		at, _ := wholeNumber(raw[keyExpiration])
		n.Expiration = &at
	}
	if raw[keyTTL] != nil {
		s, _ := wholeNumber(raw[keyTTL])
		if s == 0 || s > maxTTL {
			return &Error{"ttl", badTTL}
		}
		j.TTL = time.Duration(s) * time.Second
	} else {
		j.TTL = app.TTL
	}
	if n.ChannelID != "" {
		broadcast(n, app.Topic)
		return nil
	}
	if n.PushType == "" {
		n.PushType = inferred
	}
	if n.Priority == 0 {
		n.Priority = apnsconn.DefaultPriority(n.PushType)
	}
	if n.Expiration == nil && n.PushType == "voip" && app.Expiration == 0 {
		n.Expiration = new(int64) // a call that APNs stores rings late
	}
	n.Topic = apnsconn.TopicFor(app.Topic, n.PushType)
	return nil
}

// broadcast fills in what every broadcast has. APNs refuses one without an
// expiration, and 0 is the only one that channels of both storage policies take
// (Apple: handling-error-responses-from-apns).
func broadcast(n *apnsconn.Notification, topic string) {
	n.Topic = topic
	if n.PushType == "" {
		n.PushType = "liveactivity"
	}
	if n.Priority == 0 {
		n.Priority = 10 // what absent means for other pushes; here the header is required
	}
	if n.Expiration == nil {
		n.Expiration = new(int64)
	}
}

// Expired reports whether the job's expiration has passed: APNs would not store the
// push, and its producer does not want it any more. 0 is not a time: it asks
// APNs for one attempt.
func (j *Job) Expired(now time.Time) bool {
	at := j.Notification.Expiration
	return at != nil && *at != 0 && *at <= now.Unix()
}

// asError turns apnsconn's fault into the job's: the keys have the same names.
func asError(err error) error {
	var f *apnsconn.FieldError
	if errors.As(err, &f) {
		return &Error{f.Key, f.Why}
	}
	return &Error{"", err.Error()}
}

// Short is what is shown of a device token or a channel's id: its first 8 characters.
func Short(token string) string { return token[:min(8, len(token))] }

// partial is what can be read of a job that can never work: where it was to go, its ref
// and its parent, for its record. Keys may be unknown, given twice or of another kind, and
// the body may break off or be no UTF-8: what stands in front of that is read.
func (read *Job) partial(body []byte) (j Job) {
	list := read.Tokens != nil // has been read, and is not small
	if list {
		j.Tokens, j.Malformed, j.MoreMalformed, j.Notification.Token = read.Tokens, read.Malformed, read.MoreMalformed, read.Notification.Token
	}
	var token, tokens []byte
	_ = rawjson.Members(body, func(name, value []byte) error { // the job's fault is known
		switch nameOf(name) {
		case "token":
			token = value
		case "tokens":
			tokens = value
		case "channel_id":
			if isString(value) {
				j.Notification.ChannelID = cutReason(text(value), maxRef)
			}
		case "ref":
			if isString(value) {
				j.Ref = cutReason(text(value), maxRef)
			} else if isNumber(value) {
				j.Ref = cutReason(string(value), maxRef)
			}
		}
		return nil
	})
	for _, given := range [...][]byte{tokens, token} {
		switch {
		case given == nil || list:
		case isList(given):
			_ = j.list(given)
		case isString(given):
			j.addToken(text(given))
		}
	}
	j.Parent, _ = parentOf(body)
	return j
}

// addToken adds a token to those of a job that can never work.
func (j *Job) addToken(given string) {
	token, err := apnsconn.NormalizeToken(given)
	var fault *Error
	switch {
	case err != nil && errors.As(asError(err), &fault):
		j.Malformed = append(j.Malformed, BadToken{cutToken(given), fault})
	case !slices.Contains(j.Tokens, token):
		j.Tokens = append(j.Tokens, token)
		j.Notification.Token = j.Tokens[0]
	}
}

// cutToken is the part of a malformed token that its record shows.
func cutToken(given string) string {
	return strings.Clone(cutReason(given, maxBadToken))
}
