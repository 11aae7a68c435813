package job

import (
	"fmt"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// Rules are what the jobs of an app are judged by.
type Rules struct {
	Topic string // its bundle id
	// Expiration and TTL are for jobs that give none; 0 means none.
	Expiration, TTL time.Duration
	ExtraKeys       bool            // keys that no job has are ignored
	Certificate     bool            // it has a certificate, and no key for provider tokens
	LiveActivities  *LiveActivities // with a certificate: what APNs has said of them; nil: nothing
}

// ApplyDefaults sets the app's default expiration, which counts from now, if the job gives
// none.
func (r *Rules) ApplyDefaults(j *Job, now time.Time) {
	if n := &j.Notification; n.Expiration == nil && r.Expiration > 0 {
		at := now.Add(r.Expiration).Unix()
		n.Expiration, j.DefaultExpiration = &at, true
	}
}

// LiveActivities remembers that APNs has refused an app's Live Activities. With a certificate
// they may work or not: Apple says of location pushes only that they need a provider token.
type LiveActivities struct {
	refused atomic.Int64 // when, in Unix nanoseconds
	warned  atomic.Bool
}

// refusedFor is how long a refusal is believed: then one push asks APNs again.
const refusedFor = time.Hour

func (l *LiveActivities) areRefused(now time.Time) bool {
	return l != nil && now.Sub(time.Unix(0, l.refused.Load())) < refusedFor
}

// FirstWarning returns, once, a warning of Live Activities with a certificate; "" if n is
// none.
func (r *Rules) FirstWarning(n *apnsconn.Notification) string {
	if !r.liveByCertificate(n) || r.LiveActivities == nil || r.LiveActivities.warned.Swap(true) {
		return ""
	}
	return liveWarning
}

// Refused notes that APNs has refused the app's credential for n.
func (r *Rules) Refused(n *apnsconn.Notification, now time.Time) {
	if r.liveByCertificate(n) && r.LiveActivities != nil {
		r.LiveActivities.refused.Store(now.UnixNano())
	}
}

// liveByCertificate reports whether the push is a Live Activity that goes to a device with
// a certificate.
func (r *Rules) liveByCertificate(n *apnsconn.Notification) bool {
	return r.Certificate && n.PushType == "liveactivity" && n.ChannelID == ""
}

const liveWarning = "a Live Activity with a certificate: APNs may refuse it; a key for provider tokens (.p8) serves all push types"

// permits checks that the app's credential may serve the push.
func (r *Rules) permits(n *apnsconn.Notification) error {
	switch {
	case !r.Certificate:
	case apnsconn.TokenOnly(n.PushType):
		return &Error{"push_type", n.PushType + " works with a key for provider tokens (.p8) only, and the app has a certificate"}
	case r.liveByCertificate(n) && r.LiveActivities.areRefused(time.Now()):
		return &Error{"push_type", "APNs has refused Live Activities with the app's certificate within the last hour: give the app a key for provider tokens (.p8)"}
	}
	return nil
}

// ParseProduced is Parse for a job that a producer is about to put, now, to be served
// after delay: it must not expire unsent, nor have the key "again", which only the daemon sets: with
// it a producer could have a job buried under another's name, or its time begin in the past.
func (r *Rules) ParseProduced(body []byte, now time.Time, delay time.Duration) (Job, error) {
	j, err := r.Parse(body, "")
	if err == nil && j.Parent != nil {
		err = badParent()
	}
	if err == nil {
		err = j.inTime(now, delay, "delay")
	}
	return j, err
}

// longest is more seconds than anybody gives as a duration, ten years. Unix time below is
// a duration that was taken for a time.
const longest = 10 * 365 * 24 * 60 * 60

// inTime says why the job, put now and served after delay, would expire unsent; nil if it
// would not. key is the one that gives the delay.
func (j *Job) inTime(now time.Time, delay time.Duration, key string) error {
	served := now.Add(delay)
	switch {
	case j.Expired(now):
		return &Error{"expiration", pastExpiration(*j.Notification.Expiration, now)}
	case j.TTL > 0 && delay >= j.TTL:
		return &Error{key, fmt.Sprintf("is %s from now, when the job's ttl of %s is over: it would expire unsent", delay, j.TTL)}
	case j.Expired(served):
		return &Error{key, fmt.Sprintf("is %s, when the job's expiration of %s has passed: it would expire unsent",
			clock(served.Unix()), clock(*j.Notification.Expiration))}
	}
	return nil
}

// pastExpiration says what is wrong with an expiration that has passed.
func pastExpiration(at int64, now time.Time) string {
	if at < longest {
		return fmt.Sprintf("is %d, a time in %d: write Unix time in seconds (now: %d), or give a duration as ttl", at, time.Unix(at, 0).UTC().Year(), now.Unix())
	}
	return fmt.Sprintf("is %d, and that time has passed (now: %d)", at, now.Unix())
}

func clock(at int64) string { return time.Unix(at, 0).UTC().Format(time.RFC3339) }

// WhyExpired says why the job expires unsent, and what is wrong with one that could never
// have been sent. age is since it was put, if that is known.
func (j *Job) WhyExpired(now time.Time, age time.Duration, known bool) string {
	const late = "expired before it was sent"
	at, put := j.Notification.Expiration, now.Add(-age)
	switch {
	case j.DefaultExpiration || !j.Expired(now):
	case *at < longest:
		return late + ": expiration " + pastExpiration(*at, now)
	case known && *at < put.Unix():
		return late + ": expiration is " + clock(*at) + ", and the job was put later, at " + clock(put.Unix())
	default:
		return late
	}
	if known && j.TTL > 0 && age >= j.TTL {
		return fmt.Sprintf("%s: older than its ttl of %s, which counts from the put, as a delay does", late, j.TTL)
	}
	return late
}

// maxWarnings bounds what is said of one job.
const maxWarnings = 20

// Warnings are about what works and is perhaps not what was meant.
func (r *Rules) Warnings(j *Job) (out []string) {
	n := &j.Notification
	if r.liveByCertificate(n) {
		out = append(out, liveWarning)
	}
	if j.extra != nil {
		out = append(out, fmt.Sprintf("%v: it is ignored (extra_keys)", j.extra))
	}
	w := warnings{out}
	_ = rawjson.Members(n.Payload, func(name, value []byte) error { // it is one
		w.look(text(name), value)
		if text(name) == "aps" && isObject(value) {
			w.spelling("aps", value, apsKeys[:])
		}
		return nil
	})
	return w.out
}

// apsKeys are the keys of aps that Apple documents.
var apsKeys = [...]string{
	"alert", "badge", "sound", "category", "thread-id", "target-content-id", "interruption-level", "relevance-score", "filter-criteria",
	"mutable-content", "content-available", "content-changed", "content-state", "stale-date", "dismissal-date", "attributes-type", "attributes",
	"timestamp", "event",
}

type warnings struct{ out []string }

func (w *warnings) add(text string) {
	if len(w.out) < maxWarnings {
		w.out = append(w.out, text)
	}
}

// look finds null in a value, which reaches the app as it is.
func (w *warnings) look(at string, value []byte) {
	below := func(name string, value []byte) {
		if len(at)+len(name) < maxRef {
			w.look(at+"."+name, value)
		}
	}
	switch {
	case isNull(value):
		w.add(at + " is null, and is sent so")
	case isObject(value):
		_ = eachMember(value, func(name string, value []byte) error { below(name, value); return nil })
	case isList(value):
		i := -1
		_ = rawjson.Elements(value, func(_ int, value []byte) error {
			i++
			below(fmt.Sprint(i), value)
			return nil
		})
	}
}

// spelling finds keys that are known in another spelling, to which a device pays no heed.
func (w *warnings) spelling(at string, obj []byte, known []string) {
	_ = eachMember(obj, func(name string, _ []byte) error {
		if right := apnsconn.Meant(name, known); right != "" {
			w.add(fmt.Sprintf("%s.%s: Apple's key is %s", at, name, right))
		}
		return nil
	})
}
