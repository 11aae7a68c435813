package job

import "time"

// ParseProduced is Parse for a job that a producer is about to put, now, to be served
// after delay: it must not expire unsent. And the key again is the daemon's own. Who could
// write it could have a job buried under another's name, or its time begin in the past.
func (a *Rules) ParseProduced(body []byte, now time.Time, delay time.Duration) (Job, error) {
	j, err := a.Parse(body, "")
	if err == nil && j.Parent != nil {
		err = badParent()
	}
	if err == nil {
		err = j.inTime(now, delay, "delay")
	}
	return j, err
}
