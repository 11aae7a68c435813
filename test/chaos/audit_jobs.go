package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
)

// judgeBuried looks at one job that was buried at the end.
func (c *court) judgeBuried(a *account, of app, id, body string) {
	numbers := c.ledger.numbersIn(body)
	if len(numbers) == 0 {
		find(&a.wrong, "a job in the queue that nobody put: %s %s %.100q", of.tube, id, body)
		return
	}
	first, says := saidIn(id, body)
	for _, n := range numbers {
		c.aside[n] = first
	}
	reason, isListed := c.listed[of.tube].reasons[first]
	switch {
	case !isListed && !c.listed[of.tube].more:
		find(&a.wrong, "buried job %s of %s is not listed", first, of.tube)
	case isListed && knownReason(reason):
		a.listed++
	case !isListed && says:
		a.explained++
	default:
		find(&a.wrong, "buried job %s of %s has no reason: %q", first, of.tube, reason)
		a.wrongPushes = append(a.wrongPushes, numbers[0])
	}
}

// saidIn returns from a buried job's body the id that its producer got, and whether it
// carries a reason. A body that is not JSON is its own reason.
func saidIn(id, body string) (first string, says bool) {
	var j struct {
		Again struct{ Job, Bury string }
	}
	if json.Unmarshal([]byte(body), &j) != nil {
		return id, true
	}
	return cmp.Or(j.Again.Job, id), j.Again.Bury != ""
}

// judgeFeedbackTube looks at what is buried on a feedback tube: what was no
// record, and nothing else.
func (c *court) judgeFeedbackTube(a *account, of app) {
	junk := 0
	for id, body := range c.buried[of.feedback] {
		if body != junkRecord {
			find(&a.wrong, "a record was buried: %s %s %.100q", of.feedback, id, body)
		} else {
			junk++
		}
	}
	if of.webhook && junk < c.junk && !c.removed.any() {
		find(&a.wrong, "of %d jobs on %s that are no records %d are buried", c.junk, of.feedback, junk)
	}
}

// judgePauses finds apps that the environment guard stopped though they were
// in the right environment.
func (c *court) judgePauses(a *account) {
	for _, p := range c.said.pauses {
		excused := false
		for _, m := range c.misled {
			// The app that is replaced goes on until it has drained.
			if m.topic == p.topic && (span{from: m.from, to: m.end()}).meets(p.at, p.at) {
				excused = true
			}
		}
		if !excused {
			find(&a.wrong, "%s was paused at %s though its environment was right", p.topic, p.at.Format(time.RFC3339Nano))
		}
	}
}

// end is when the last push to the wrong environment has been settled.
func (m *mislead) end() time.Time {
	if m.to.IsZero() {
		return m.to
	}
	return m.to.Add(stopLimit)
}

// Bounds of the watchdog's restarts. After one restart of a worker the next
// step is that readiness fails: more of them in a row are a loop.
const (
	mostRestarts = 3
	restartsIn   = time.Minute
)

// judgeWatchdog finds workers that were restarted again and again.
func (c *court) judgeWatchdog(a *account) {
	for worker, times := range c.said.restarts {
		for i := mostRestarts; i < len(times); i++ {
			if times[i].Sub(times[i-mostRestarts]) < restartsIn {
				find(&a.wrong, "%s was restarted by the watchdog %d times within %v, until %s", worker, mostRestarts+1, restartsIn, times[i].Format(time.RFC3339Nano))
				break
			}
		}
	}
}

// judgeSequence judges the webhook's order.
func (c *court) judgeSequence(a *account) {
	s := c.said.sequence
	a.wrong = append(a.wrong, s.disorder...)
	if n := s.missing(); n > 0 {
		find(&a.wrong, "%s", fmt.Sprintf("%d records of %d on the webhook's tube never came", n, len(s.stored)))
	}
}
