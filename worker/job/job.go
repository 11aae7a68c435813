// Package job is the JSON of a job: it decodes what a producer wrote, assembles the payload, checks
// it by the rules of its app, splits long lists, and reads and writes what propeller adds to a
// job that goes back into the queue. docs/job-format.md describes the format.
package job

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/nearest"
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
	Parent *Parent // nil unless the job is a rest or was buried
	extra  error   // of the first key that is ignored; nil if none is
}

// Error says which key of a job can never work, and why.
type Error struct {
	Key string // as written in the job, shortened if it is none of a job's; "" when it is the job as a whole
	Why string
}

// unknown is why a job with a key that there is none of can never work.
const unknown = "unknown key"

func (e *Error) Error() string {
	if e.Key == "" {
		return "job: " + e.Why
	}
	if strings.HasPrefix(e.Why, unknown) { // the key may be any text
		return fmt.Sprintf("job: %q: %s", e.Key, e.Why)
	}
	return fmt.Sprintf("job: %s: %s", e.Key, e.Why)
}

// key numbers the keys of a job.
type key int

const (
	keyToken key = iota
	keyTokens
	keyTokenSince
	keyChannelID
	keyTitle
	keySubtitle
	keyBody
	keyBadge
	keySound
	keyCategory
	keyThreadID
	keyTargetContentID
	keyInterruptionLevel
	keyRelevanceScore
	keyFilterCriteria
	keyMutableContent
	keyContentAvailable
	keyAPS
	keyData
	keyPayload
	keyPushType
	keyPriority
	keyCollapseID
	keyID
	keyExpiration
	keyTTL
	keyRef
	keyAgain
	numKeys
)

// kind is what a key's value must look like.
type kind int

const (
	kindString kind = iota
	kindWhole       // whole number ≥ 0, or a string of digits
	kindNumber
	kindFlag // true, false, 1, 0
	kindObject
	kindSound // string or object
	kindList
)

var kindText = [...]string{
	kindString: "must be a string",
	kindWhole:  "must be a whole number, 0 or more",
	kindNumber: "must be a number",
	kindFlag:   "must be true, false, 1 or 0",
	kindObject: "must be an object",
	kindSound:  "must be a string or an object",
	kindList:   "must be a list",
}

const (
	badPriority = "must be 1, 5 or 10"
	badTTL      = "must be a number of seconds, 1 or more"
)

// jobKeys is the job format: each key, what it holds, and for the short forms
// where in aps it goes.
var jobKeys = [numKeys]struct {
	name string
	kind kind
	aps  string // name in aps; "" when the key is no short form there
}{
	keyToken:             {"token", kindString, ""},
	keyTokens:            {"tokens", kindList, ""},
	keyTokenSince:        {"token_since", kindWhole, ""},
	keyChannelID:         {"channel_id", kindString, ""},
	keyTitle:             {"title", kindString, ""}, // title, subtitle and body go into aps.alert
	keySubtitle:          {"subtitle", kindString, ""},
	keyBody:              {"body", kindString, ""},
	keyBadge:             {"badge", kindWhole, "badge"},
	keySound:             {"sound", kindSound, "sound"},
	keyCategory:          {"category", kindString, "category"},
	keyThreadID:          {"thread_id", kindString, "thread-id"},
	keyTargetContentID:   {"target_content_id", kindString, "target-content-id"},
	keyInterruptionLevel: {"interruption_level", kindString, "interruption-level"},
	keyRelevanceScore:    {"relevance_score", kindNumber, "relevance-score"},
	keyFilterCriteria:    {"filter_criteria", kindString, "filter-criteria"},
	keyMutableContent:    {"mutable_content", kindFlag, "mutable-content"},
	keyContentAvailable:  {"content_available", kindFlag, "content-available"},
	keyAPS:               {"aps", kindObject, ""},
	keyData:              {"data", kindObject, ""},
	keyPayload:           {"payload", kindObject, ""},
	keyPushType:          {"push_type", kindString, ""},
	keyPriority:          {"priority", kindWhole, ""},
	keyCollapseID:        {"collapse_id", kindString, ""},
	keyID:                {"id", kindString, ""},
	keyExpiration:        {"expiration", kindWhole, ""},
	keyTTL:               {"ttl", kindWhole, ""},
	keyRef:               {"ref", kindString, ""},
	keyAgain:             {"again", kindObject, ""}, // written by split and bury
}

func keyOf(name string) (key, bool) {
	for k := range jobKeys {
		if jobKeys[k].name == name {
			return key(k), true
		}
	}
	return 0, false
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

// Parse is Rules.Parse for an app with a topic and no more.
func Parse(body []byte, topic, jobID string) (Job, error) {
	app := Rules{Topic: topic}
	return app.Parse(body, jobID)
}

// Parse decodes a job of the app. jobID is the queue's id of it, from which the apns-id is
// derived when the job brings none: it is the same on every try. The error is a *Error:
// the job can never work; the Job then holds of its address, ref and origin what could be
// read.
func (a *Rules) Parse(body []byte, jobID string) (Job, error) {
	var g gathered
	err := g.read(body)
	return a.parse(&g, err, body, jobID)
}

// parse is Parse of what has been gathered up to a fault.
func (a *Rules) parse(g *gathered, err error, body []byte, jobID string) (j Job, _ error) {
	if err == nil && !a.ExtraKeys {
		err = g.extra
	}
	if err == nil {
		err = j.read(&g.raw, a, body, jobID)
	}
	if err != nil {
		return j.salvaged(body), err
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
	return app.fits(n)
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

// rawJob holds the raw value of each key; nil for absent and for null.
type rawJob [numKeys][]byte

// read checks the form of a job: a JSON object of known keys, each once, each of
// its kind.
func (g *gathered) read(body []byte) error {
	_, err := bodyMembers(body, func(name string, value []byte) error { return g.add(name, value) })
	return err
}

// gathered are the members of a job so far.
type gathered struct {
	raw   rawJob
	seen  [numKeys]bool
	extra error // of the first key that no job has; nil if there is none
}

// add takes up one member, unless it is at fault.
func (g *gathered) add(name string, value []byte) error {
	k, ok := keyOf(name)
	if !ok {
		if g.extra == nil {
			g.extra = unknownKey(name)
		}
		return nil
	}
	if g.seen[k] {
		return &Error{name, "given twice"}
	}
	g.seen[k] = true
	if isNull(value) {
		return nil
	}
	if jobKeys[k].kind == kindObject && isEmptyList(value) {
		value = []byte(emptyObject)
	}
	if kind := jobKeys[k].kind; !kind.accepts(value) {
		why := kindText[kind]
		switch k {
		case keyPriority:
			why = badPriority
		case keyExpiration:
			why = "must be Unix seconds, a whole number, 0 or more"
		case keyTTL:
			why = badTTL
		}
		if isNumber(value) && len(value) <= maxDigits {
			why = fmt.Sprintf("is %s, and %s", value, why)
		}
		return &Error{name, why}
	}
	g.raw[k] = value
	return nil
}

func unknownKey(name string) error {
	// The longest known key has 18 bytes; what is much longer is no typing
	// error but perhaps a device token, which logs must not hold whole.
	if len(name) > 24 {
		name = strings.ToValidUTF8(name[:8], "") + "…"
	}
	why := unknown
	if right := apnsconn.Meant(name, keyNames()); right != "" {
		why += fmt.Sprintf(": write %q", right)
	} else if near := nearest.Of(name, keyNames()); near != "" {
		why += fmt.Sprintf(": did you mean %q? (extra_keys: ignore allows any key)", near)
	}
	return &Error{name, why}
}

func keyNames() (names []string) {
	for k := range jobKeys {
		names = append(names, jobKeys[k].name)
	}
	return names
}

func (k kind) accepts(raw []byte) bool {
	switch k {
	case kindString:
		return isString(raw)
	case kindWhole:
		_, ok := wholeNumber(raw)
		return ok
	case kindNumber:
		return isNumber(raw)
	case kindFlag:
		_, ok := flag(raw)
		return ok
	case kindObject:
		return isObject(raw)
	case kindSound:
		return isString(raw) || isObject(raw)
	case kindList:
		return isList(raw)
	}
	return false
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

// Expired says that the job's expiration has passed: APNs would not store the
// push, and whoever put it does not want it any more. 0 is no time: it asks
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
