package job

import (
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

// App is what the jobs of an app are judged by.
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
func (a *Rules) ApplyDefaults(j *Job, now time.Time) {
	if n := &j.Notification; n.Expiration == nil && a.Expiration > 0 {
		at := now.Add(a.Expiration).Unix()
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
func (a *Rules) FirstWarning(n *apnsconn.Notification) string {
	if !a.LiveByCertificate(n) || a.LiveActivities == nil || a.LiveActivities.warned.Swap(true) {
		return ""
	}
	return liveWarning
}

// Refused notes that APNs has refused the app's credential for n.
func (a *Rules) Refused(n *apnsconn.Notification, now time.Time) {
	if a.LiveByCertificate(n) && a.LiveActivities != nil {
		a.LiveActivities.refused.Store(now.UnixNano())
	}
}

// liveByCertificate reports whether the push is a Live Activity that goes to a device with
// a certificate.
func (a *Rules) LiveByCertificate(n *apnsconn.Notification) bool {
	return a.Certificate && n.PushType == "liveactivity" && n.ChannelID == ""
}

const liveWarning = "a Live Activity with a certificate: APNs may refuse it; a key for provider tokens (.p8) serves all push types"

// fits checks that the app's credential may serve the push.
func (a *Rules) fits(n *apnsconn.Notification) error {
	switch {
	case !a.Certificate:
	case apnsconn.TokenOnly(n.PushType):
		return &Error{"push_type", n.PushType + " works with a key for provider tokens (.p8) only, and the app has a certificate"}
	case a.LiveByCertificate(n) && a.LiveActivities.areRefused(time.Now()):
		return &Error{"push_type", "APNs has refused Live Activities with the app's certificate within the last hour: give the app a key for provider tokens (.p8)"}
	}
	return nil
}
