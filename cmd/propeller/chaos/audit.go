package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// account is what the auditor finds.
type account struct {
	put, unsure, never         int // accepted; put without an answer; of those never seen again
	delivered, refused, buried int
	expired                    int
	lost                       []job
	twice, excused             int // jobs delivered more than once; of those whose daemon was killed
	uncounted                  []job
	wrong                      []string // all else that must not be
	wrongJobs                  []job
	*testimony
}

// court is what the auditor judges by.
type court struct {
	jobs   []job
	lives  []life
	buried map[uint64]string // what was buried in the queue at the end
	said   *testimony
}

// judge accounts for every job.
func (c *court) judge() *account {
	a := &account{testimony: c.said}
	set := make(map[uint32]uint64, len(c.buried)) // buried jobs by number
	for id, body := range c.buried {
		n, ok := numberIn(body)
		if !ok || int(n) >= len(c.jobs) {
			find(&a.wrong, "a job in the queue that nobody put: %d %.100q", id, body)
			continue
		}
		set[n] = id
	}
	for _, j := range c.jobs {
		id, isBuried := set[j.n]
		c.judgeJob(a, j, id, isBuried)
	}
	return a
}

// judgeJob finds what became of one job: the first that holds.
func (c *court) judgeJob(a *account, j job, id uint64, isBuried bool) {
	d := c.said.deeds[j.n]
	if d == nil {
		d = new(deeds)
	}
	if j.stored {
		a.put++
	} else {
		a.unsure++
	}
	wrong := func(what string) {
		find(&a.wrong, "job %d (%s): %s", j.n, j.kind, what)
		if len(a.wrongJobs) < maxFindings {
			a.wrongJobs = append(a.wrongJobs, j)
		}
	}
	switch {
	case len(d.deliveries) > 0:
		a.delivered++
		if !j.kind.fit() {
			wrong("was delivered")
		}
	case d.token:
		a.refused++
		if !d.dead {
			wrong("its token was called dead, which APNs did not say")
		}
	case isBuried:
		a.buried++
		if !c.recorded(j, id) {
			wrong("was buried without a line in the log")
		}
	case d.expired && j.kind.mayExpire():
		a.expired++
	case j.stored:
		a.lost = append(a.lost, j)
	default:
		a.never++
	}
	if d.again {
		wrong("was pushed again by the process that had called it delivered and deleted it")
	}
	if d.changed {
		wrong("its apns-id changed from one try to the next")
	}
	c.judgeDoubles(a, j, d)
}

// recorded says whether the log has a line for a buried job.
func (c *court) recorded(j job, id uint64) bool {
	lines := c.said.buriedIDs[jobOf(apps()[j.app].topic, fmt.Sprint(id))]
	return slices.ContainsFunc(lines, func(t time.Time) bool { return t.After(j.at) })
}

// judgeDoubles counts the deliveries beyond a job's first. One is excused when
// the daemon that made the one before was killed; each other needs a line of
// the log that counts a possible duplicate.
func (c *court) judgeDoubles(a *account, j job, d *deeds) {
	if len(d.deliveries) < 2 {
		return
	}
	a.twice++
	// By when their connections began: what a frozen APNs side reads late
	// comes in any order.
	slices.SortFunc(d.deliveries, func(x, y delivery) int {
		if n := x.open.Compare(y.open); n != 0 {
			return n
		}
		return x.at.Compare(y.at)
	})
	open := 0
	for i := range d.deliveries[1:] {
		from, to := c.lifeAt(d.deliveries[i].open), c.lifeAt(d.deliveries[i+1].open)
		if from == to || !c.lives[from].killed {
			open++
		}
	}
	if open == 0 {
		a.excused++
	}
	if open > d.counted {
		a.uncounted = append(a.uncounted, j)
	}
}

// lifeAt is which process of the daemon lived at t.
func (c *court) lifeAt(t time.Time) int {
	for i := range slices.Backward(c.lives) {
		if !t.Before(c.lives[i].began) {
			return i
		}
	}
	return 0
}

// numberIn reads the number of a job from its body.
func numberIn(body string) (uint32, bool) {
	var n uint32
	if _, err := fmt.Sscanf(body, "number %d is no JSON", &n); err == nil {
		return n, true
	}
	var j struct{ Token string }
	if err := json.Unmarshal([]byte(body), &j); err != nil {
		return 0, false
	}
	return number(j.Token)
}
