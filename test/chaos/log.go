package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// logLine is what the auditor needs of a line of the daemon's log.
type logLine struct {
	Time                    time.Time
	Level, Msg, Topic, Job  string
	FirstJob                string `json:"first_job"`
	Token, Ref, APNsID      string
	Class, Reason, Why, Err string
	Worker                  json.RawMessage
	Believed                *bool // false: what APNs said of the token is not taken for true
}

// Lines of the daemon's log that the auditor knows.
const (
	lineStarted     = "propeller started"
	linePush        = "push"
	lineBuried      = "job buried"
	lineMaybeBuried = "job lost while it was buried: it will be tried again, and may be buried as well"
	lineExpired     = "expired, not sent"
	lineExpiredSome = "expired before all its tokens were sent"
	lineNotDeleted  = "job finished but not deleted: it may be pushed again"
	lineNotSplit    = "remaining tokens of a job could not be put into the queue: all of it is pushed again"
	lineTwice       = "remaining tokens of a job may be in the queue twice: they may be pushed twice"
	lineRepeats     = "job may have been finished before: it may have been pushed twice"
	watchdogPrefix  = "watchdog: "
	lineRestarted   = "watchdog: no progress: the worker is restarted"
	pausedText      = "wrong environment or topic?"
)

// logReader goes through the log in its order: the queue's ids come again.
type logReader struct {
	*testimony
	now  map[jobID][]uint32 // the pushes that an id stands for at this point of the log
	jobs map[jobID][]uint32 // the ledger's jobs by their bare ids, as they were put
}

func (t *testimony) readLog(path string) error {
	r := &logReader{t, make(map[jobID][]uint32), make(map[jobID][]uint32)}
	for i := range t.ledger.jobs {
		j := &t.ledger.jobs[i]
		id := jobID{appAt(j.app).topic, j.id}.bare()
		r.jobs[id] = append(r.jobs[id], uint32(i))
	}
	return eachLine(path, func(line int, text []byte) {
		var l logLine
		if err := json.Unmarshal(text, &l); err != nil {
			if len(bytes.TrimSpace(text)) > 0 {
				find(&t.odd, "%s:%d: %.200s", daemonLog, line, text)
			}
			return
		}
		r.line(&l)
	})
}

func (r *logReader) line(l *logLine) {
	if l.Level == "ERROR" {
		r.errors[l.Msg]++
	}
	switch {
	case l.Msg == lineStarted:
		r.lives++
	case strings.HasPrefix(l.Msg, watchdogPrefix):
		r.watchdog[l.Msg]++
		if l.Msg == lineRestarted {
			worker := l.Topic + " worker " + string(l.Worker)
			r.restarts[worker] = append(r.restarts[worker], l.Time)
		}
	case l.Level == "ERROR" && (strings.Contains(l.Msg, pausedText) || strings.Contains(l.Reason, pausedText)):
		r.pauses = append(r.pauses, pause{l.Topic, l.Time})
	}
	if l.Job != "" {
		r.jobLine(l)
	}
}

// jobLine is a line on a job: on one of its pushes, or on all.
func (r *logReader) jobLine(l *logLine) {
	id := jobID{l.Topic, l.Job}
	first := jobID{l.Topic, cmp.Or(l.FirstJob, l.Job)}
	switch l.Msg {
	case lineMaybeBuried:
		r.buriedIDs[first] = append(r.buriedIDs[first], l.Time)
	case lineBuried:
		r.buriedIDs[first] = append(r.buriedIDs[first], l.Time)
		r.buriedBare[first.bare()] = append(r.buriedBare[first.bare()], l.Time)
		r.reasons[cause(l)]++
	}
	n, known := r.ledger.number(l.Token, l.Ref, l.APNsID)
	if l.Token == "" {
		known = false
	}
	if !known {
		for _, n := range r.concerned(l, id) {
			r.pushLine(l, n)
		}
		return
	}
	if all := r.now[id]; !slices.Contains(all, n) {
		r.now[id] = append(r.sameJob(all, n), n)
	}
	r.pushLine(l, n)
}

// concerned returns the pushes that a line about a whole job means. The rest of a list has tokens
// that no line names, because they were not pushed; such a line may mean any push of the list.
func (r *logReader) concerned(l *logLine, id jobID) []uint32 {
	named := r.now[id]
	if l.Msg != lineNotSplit && l.Msg != lineTwice && l.Msg != lineRepeats {
		return named
	}
	var job uint32
	if len(named) > 0 {
		job = r.ledger.pushes[named[0]].job
	} else {
		all := r.jobs[id.bare()]
		i := len(all) - 1
		for i >= 0 && r.ledger.jobs[all[i]].at.After(l.Time) { // ids are reused
			i--
		}
		if i < 0 {
			return nil
		}
		job = all[i]
	}
	j := &r.ledger.jobs[job]
	pushes := make([]uint32, j.count)
	for i := range pushes {
		pushes[i] = j.first + uint32(i)
	}
	return pushes
}

// sameJob is what remains of the pushes that an id stood for once it is seen
// to stand for push n.
func (r *logReader) sameJob(all []uint32, n uint32) []uint32 {
	if len(all) > 0 && r.ledger.pushes[all[0]].job != r.ledger.pushes[n].job {
		return all[:0]
	}
	return all
}

func (r *logReader) pushLine(l *logLine, n uint32) {
	d := &r.deeds[n]
	if l.Time.After(d.last) {
		d.last = l.Time
	}
	switch l.Msg {
	case linePush:
		d.again = d.again || d.doneIn != 0 && d.doneIn == r.lives && d.doneJob == l.Job
		if r.ledger.jobOf(n).many {
			r.stays(n, l)
		}
		switch l.Class {
		case "unknown":
			r.doubt(d)
		case "delivered":
			d.doneIn, d.doneJob = r.lives, l.Job
		case "token":
			d.token = d.token || l.Believed == nil || *l.Believed
		case "rejected":
			d.rejected = true
		}
	case lineNotDeleted, lineNotSplit:
		r.doubt(d)
		d.forked = true
		d.doneIn = 0
	case lineRepeats:
		r.doubt(d)
		d.forked = true
	case lineTwice:
		if d.doneIn != r.lives || d.doneJob != l.Job { // else it is none of what is left
			r.doubt(d)
			d.forked = true
		}
	case lineExpired, lineExpiredSome:
		d.expired = d.expired || l.Msg == lineExpired
		if j := r.ledger.jobOf(n); j.many && j.kind.mayExpire() {
			of := r.ledger.pushes[n].job
			r.expiredLists[of] = append(r.expiredLists[of], l.Time)
		}
	}
}

// stays notes in which job a push was, and who spoke of that job.
func (r *logReader) stays(n uint32, l *logLine) {
	if d := &r.deeds[n]; !slices.Contains(d.jobs, l.Job) {
		d.jobs = append(d.jobs, l.Job)
	}
	list := r.lists[r.ledger.pushes[n].job]
	i := slices.IndexFunc(list, func(s stay) bool { return s.job == l.Job })
	if i < 0 {
		i = len(list)
		list = append(list, stay{job: l.Job, at: l.Time, life: r.lives})
		r.lists[r.ledger.pushes[n].job] = list
	}
	s := &list[i]
	if s.life != r.lives {
		s.from = append(s.from, s.life)
	}
	s.life = r.lives
}

// doubt counts a possible duplicate of a push.
func (r *logReader) doubt(d *deeds) {
	r.doubts++
	d.counted++
}

// cause shortens the reason of a buried job to what many have in common.
func cause(l *logLine) string {
	why := l.Why
	if why == "" {
		why = l.Reason
	}
	why, _, _ = strings.Cut(why, ", after ")
	switch {
	case strings.HasPrefix(why, "gave up after"):
		return "gave up"
	case strings.Contains(why, "is not hex"):
		return "a token is not hex"
	}
	return why
}
