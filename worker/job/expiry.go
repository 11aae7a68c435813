package job

import (
	"fmt"
	"time"
)

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
