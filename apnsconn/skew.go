package apnsconn

import (
	"fmt"
	"net/http"
	"time"
)

// ClockError says that this machine's clock is far from APNs'. Provider tokens
// carry the time they were made, so that APNs refuses good ones then.
type ClockError struct {
	Skew    time.Duration // APNs' clock less ours: positive when ours is behind
	AtLeast bool          // it may be more
}

func (e *ClockError) Error() string {
	where, least := "behind", ""
	if e.Skew < 0 {
		where = "ahead of"
	}
	if e.AtLeast {
		least = "at least "
	}
	minutes := e.Skew.Abs().Round(time.Minute) / time.Minute
	return fmt.Sprintf("this machine's clock is %s%d minutes %s APNs': set it, best by NTP", least, minutes, where)
}

// maxSkew is the difference from APNs' clock that is worth a word. An honest
// clock is within seconds; the age of a token leaves 10 minutes.
const maxSkew = 5 * time.Minute

// skewOf is how far a date header's time is ahead of ours; 0 if there is none
// that makes sense.
func skewOf(date string) time.Duration {
	t, err := http.ParseTime(date)
	if err != nil {
		return 0
	}
	return time.Until(t)
}

// tokenLife is the age at which APNs refuses a token (Apple:
// establishing-a-token-based-connection-to-apns).
const tokenLife = time.Hour

// tokenAnswer draws the conclusions of p's answer for the provider token, and
// for the clock it was made by. mu is held.
func (c *Conn) tokenAnswer(p *push, o *Outcome) {
	if c.token.source == nil {
		return
	}
	switch o.Reason {
	case "TooManyProviderTokenUpdates":
		c.token.tooMany()
	case "InvalidProviderToken":
		o.Err = clockFault(p.skew, 0)
	case "ExpiredProviderToken":
		age, better := c.token.expired()
		o.Err = clockFault(p.skew, tokenLife-age)
		if c.fresh && !better {
			// The connection is as fresh as the token: no other one can do
			// better, so this is not to be tried push by push.
			o.Class = Credential
		}
	}
}

// clockFault says what a refused token tells of the clock: skew is what the
// answer's date says, 0 without one, and behind how much later APNs' clock must
// be for the token to be expired. It is nil if that is within reason.
func clockFault(skew, behind time.Duration) error {
	switch {
	case skew.Abs() > maxSkew:
		return &ClockError{skew, false}
	case skew == 0 && behind > maxSkew:
		return &ClockError{behind, true}
	}
	return nil
}
