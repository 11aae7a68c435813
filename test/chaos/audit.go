package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// account is what the auditor finds. Its numbers are of pushes.
type account struct {
	jobs, put, unsure, never   int // accepted jobs, their pushes; pushes put without an answer; of those never seen again
	delivered, refused, buried int
	expired                    int
	removed                    int // with a removed stream
	waiting                    int // still in the queue; calm.go says why
	lost                       []uint32
	twice, excused             int // delivered more than once; of those whose daemon was killed
	stored                     int // of a delayed job that the queue's server has stored twice
	uncounted                  []uint32
	unrecorded                 []uint32 // ended without the record that was promised
	repeated                   int      // records given more than once
	misled                     int      // pushes that the wrong environment was asked for
	listed, explained          int      // buried jobs that `propeller jobs list` shows with their reasons; buried jobs beyond its limit that carry one
	wrong                      []string // all else that must not be
	wrongPushes                []uint32
	all                        []string // the run's faults
	said                       *testimony
}

// court is what the auditor judges by.
type court struct {
	ledger   *ledger
	apps     int // the busy ones and the sleepers
	lives    []life
	troubles []span
	misled   []mislead
	buried   map[string]map[string]string // what was buried at the end: bodies by tube and id
	listed   map[string]page              // what `propeller jobs list` showed, by tube
	waiting  *traces                      // jobs and records still in the queue
	junk     int                          // jobs on the webhook's tube that are not records
	removed  *removed                     // what removed streams took along; nil if nothing
	said     *testimony

	aside map[uint32]string // ids that producers got, of buried jobs, by push
}

// judge accounts for every push.
func (c *court) judge() *account {
	a := &account{said: c.said}
	c.aside = make(map[uint32]string)
	for _, app := range allApps(c.apps) {
		for _, id := range slices.Sorted(maps.Keys(c.buried[app.tube])) {
			c.judgeBuried(a, app, id, c.buried[app.tube][id])
		}
		if app.feedback != "" {
			c.judgeFeedbackTube(a, app)
		}
	}
	for i := range c.ledger.jobs {
		if c.ledger.jobs[i].stored {
			a.jobs++
		}
	}
	for n := range c.ledger.pushes {
		c.judgePush(a, uint32(n))
	}
	c.judgePauses(a)
	c.judgeWatchdog(a)
	c.judgeSequence(a)
	return a
}

// verdict is the judgement on one push.
type verdict struct {
	c *court
	a *account
	n uint32
	push
	j *job
	d *deeds
}

func (v *verdict) wrong(what string) {
	find(&v.a.wrong, "push %d (%s, %s): %s", v.n, v.j.kind, v.fate, what)
	v.show()
}

// show has the push's story told.
func (v *verdict) show() {
	if len(v.a.wrongPushes) < maxFindings {
		v.a.wrongPushes = append(v.a.wrongPushes, v.n)
	}
}

// records says whether the push's app has feedback: its log is not enough then.
func (v *verdict) records() bool { return appAt(v.j.app).feedback != "" }

func (c *court) judgePush(a *account, n uint32) {
	v := &verdict{c, a, n, c.ledger.pushes[n], c.ledger.jobOf(n), &c.said.deeds[n]}
	if v.j.stored {
		a.put++
	} else {
		a.unsure++
	}
	if v.d.misled {
		a.misled++
	}
	v.end()
	v.lies()
	v.repeats()
	c.judgeDoubles(a, n, v.d)
}

// end finds what became of the push: the first that holds.
func (v *verdict) end() {
	d, a := v.d, v.a
	id, isBuried := v.c.aside[v.n]
	switch {
	case len(d.deliveries) > 0:
		a.delivered++
		if !v.j.kind.sound() || !v.fate.arrives() {
			v.wrong("was delivered")
		}
	case isBuried:
		a.buried++
		if !v.recordedBuried(id) {
			v.unrecorded()
		}
	case d.has("token"):
		a.refused++
	case v.j.kind.mayExpire() && d.has("expired"): // perhaps after a line on a token whose record could not be put
		a.expired++
	case v.fate == deformed && (d.rejected || d.setAside() || v.c.said.refRecords[v.job] > 0):
		a.refused++
		if v.records() && !d.setAside() && !v.refRecorded() {
			v.unrecorded()
		}
	case d.token:
		a.refused++
		if v.records() {
			v.unrecorded()
		}
	case v.j.kind.mayExpire() && d.expired:
		a.expired++
		if v.records() {
			v.unrecorded()
		}
	case v.expiredUnnamed():
		a.expired++
	case v.c.waiting.pushes[v.n]:
		a.waiting++
	case v.j.stored && v.tookJob():
		a.removed++
	case v.j.stored && v.untold():
		a.refused++
	case v.j.stored:
		a.lost = append(a.lost, v.n)
	default:
		a.never++
	}
	if isBuried && !v.c.logged(v.j, id) && !v.tookOriginal() {
		v.wrong("was buried without a line in the log")
	}
}

// expiredUnnamed reports whether a push of an expired list lacks a record because that went with
// the stream of jobs, or still waits: the log names only one token of the list.
func (v *verdict) expiredUnnamed() bool {
	times := v.c.said.expiredLists[v.job]
	if len(times) == 0 {
		return false
	}
	r := v.c.removed
	return v.c.waiting.records[v.n] || r.any() && (r.had[jobsStream].records[v.n] || r.within(jobsStream, times...))
}

// untold reports whether a push has ended that only a log line would show, and the daemon was
// killed after it had deleted the job and before it wrote the line.
func (v *verdict) untold() bool {
	switch {
	case v.records():
		return false
	case v.d.dead:
		return v.c.lives[v.c.lifeAt(v.d.last)].killed
	case v.fate != deformed:
		return false
	}
	for n := v.j.first; n < v.j.first+uint32(v.j.count); n++ { // its job ended together with its other pushes
		if last := v.c.said.deeds[n].last; !last.IsZero() && v.c.lives[v.c.lifeAt(last)].killed {
			return true
		}
	}
	return false
}

func (v *verdict) unrecorded() {
	if !v.tookRecord() && !v.c.waiting.record(v) {
		v.a.unrecorded = append(v.a.unrecorded, v.n)
	}
}

// recordedBuried says whether a buried push has its record: of its own, or of
// its job when that cannot be decoded.
func (v *verdict) recordedBuried(id string) bool {
	if !v.records() || v.d.setAside() || v.fate == deformed && v.refRecorded() {
		return true
	}
	if v.j.kind.sound() && v.fate != deformed {
		return false
	}
	of := v.c.said.jobRecords[jobID{appAt(v.j.app).topic, id}]
	return slices.ContainsFunc(of, func(r told) bool { return r.at.After(v.j.at.Add(-time.Second)) })
}

// refRecorded says whether there are as many records of tokens that are none
// as the push's job has such tokens.
func (v *verdict) refRecorded() bool {
	want := 0
	for n := v.j.first; n < v.j.first+uint32(v.j.count); n++ {
		if v.c.ledger.pushes[n].fate == deformed {
			want++
		}
	}
	return v.c.said.refRecords[v.job] >= want
}

// lies finds what was said of the push and is not so.
func (v *verdict) lies() {
	d := v.d
	dead := d.dead || v.fate == grave && v.c.said.dug[appAt(v.j.app).topic]
	switch said := d.token || d.has("token"); {
	case said && !dead && d.misled:
		v.wrong("its token was called dead, which only the wrong environment said")
	case said && !dead:
		v.wrong("its token was called dead, which APNs did not say")
	}
	if (d.expired || d.has("expired")) && !v.j.kind.mayExpire() {
		v.wrong("was called expired, and had no time to keep")
	}
	if d.again {
		v.wrong("was pushed again by the process that had called it delivered and deleted it")
	}
	if d.changed {
		v.wrong("its apns-id changed from one try to the next")
	}
}

// slack is how far the moment of a record may be from that of the trouble that
// repeats it: times are taken before a record is put, and pushes go on after.
const slack = 3 * time.Second

// repeats counts the records beyond the push's first. Only trouble may have
// made them.
func (v *verdict) repeats() {
	all := v.d.records
	slices.SortFunc(all, func(x, y told) int { return x.at.Compare(y.at) })
	for i := 1; i < len(all); i++ {
		v.a.repeated++
		if !v.d.forked && v.c.torn(v.n) == 0 && !v.c.troubled(all[i-1].at.Add(-slack), all[i].at) {
			v.wrong(fmt.Sprintf("has another record (%s after %s) though nothing had happened", all[i].class, all[i-1].class))
		}
	}
	_, isBuried := v.c.aside[v.n]
	for _, r := range all {
		if r.class != "token" && r.class != "expired" && v.fate != deformed && !isBuried && !v.tookJob() && !v.c.troubled(r.at.Add(-slack), r.at.Add(slack)) {
			v.wrong("was called buried (" + r.class + ") and is not")
		}
	}
}

// troubled says whether something was wrong between from and to.
func (c *court) troubled(from, to time.Time) bool {
	return slices.ContainsFunc(c.troubles, func(s span) bool { return s.meets(from, to) })
}

// logged says whether the log has a line for a buried job. The line has the id that the
// producer got; once kicked, a job that is not JSON has another one in the queue.
func (c *court) logged(j *job, id string) bool {
	topic := appAt(j.app).topic
	lines := c.said.buriedIDs[jobID{topic, id}]
	if j.id != "" {
		lines = slices.Concat(lines, c.said.buriedBare[jobID{topic, j.id}.bare()])
	}
	return slices.ContainsFunc(lines, func(t time.Time) bool { return t.After(j.at) })
}

// judgeDoubles counts the deliveries beyond a push's first. One is excused when
// the daemon that made the one before was killed; each other needs a line of
// the log that counts a possible duplicate.
func (c *court) judgeDoubles(a *account, n uint32, d *deeds) {
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
	open := int32(0)
	for i := range d.deliveries[1:] {
		from, to := c.lifeAt(d.deliveries[i].open), c.lifeAt(d.deliveries[i+1].open)
		if from == to || !c.lives[from].killed {
			open++
		}
	}
	open = max(0, open-c.torn(n))
	if open > d.counted && c.tornUnseen(n) {
		open--
	}
	if open == 0 {
		a.excused++
	}
	switch {
	case open <= d.counted:
	case c.storedTwice(n, d):
		a.stored++
	default:
		a.uncounted = append(a.uncounted, n)
	}
}

// storedTwice says whether a push may have been in two copies of a delayed job, one of which
// was finished before the daemon's restart (docs/reliability.md: such are not counted). The
// queue's server stores a job twice if trouble comes when it is due.
func (c *court) storedTwice(n uint32, d *deeds) bool {
	list := c.ledger.jobOf(n)
	delayed := slices.ContainsFunc(append(d.jobs, list.id), func(id string) bool { return id != "" && stay{job: id}.number() == 0 })
	last := d.deliveries[len(d.deliveries)-2:]
	return delayed && c.lifeAt(last[0].open) != c.lifeAt(last[1].open) && c.troubled(list.at, last[0].at)
}

// torn counts how often a killed daemon may have left a push in two jobs: it had
// put what was left of a list into the queue, and not deleted the list yet. It
// need not have spoken of this push, which may not have been sent by then.
func (c *court) torn(n uint32) int32 {
	jobs := c.said.deeds[n].jobs
	if len(jobs) < 2 {
		return 0
	}
	torn := int32(0)
	for _, s := range c.said.lists[c.ledger.pushes[n].job] {
		for _, life := range s.from {
			if i := int(life) - 1; i >= 0 && i < len(c.lives) && c.lives[i].killed {
				torn++
			}
		}
		// Those after it come from those before it, or have other tokens.
		if s.job == jobs[len(jobs)-1] {
			break
		}
	}
	return torn
}

// tornUnseen is torn for a daemon that was killed before it spoke of the list at all. When
// it put what was left of it can be told from the queue's numbers for jobs.
func (c *court) tornUnseen(n uint32) bool {
	list := c.ledger.jobOf(n)
	for _, s := range c.said.lists[c.ledger.pushes[n].job] {
		from, to, ok := c.storedWithin(s, list.at)
		if !ok || strconv.Itoa(s.number()) == list.id || !slices.Contains(c.said.deeds[n].jobs, s.job) {
			continue
		}
		for _, l := range c.lives {
			if l.killed && !l.ended.Before(from) && !l.began.After(to) {
				return true
			}
		}
	}
	return false
}

// storedWithin tells when a job was stored, by those that producers put before and after it.
func (c *court) storedWithin(s stay, after time.Time) (from, to time.Time, ok bool) {
	number := s.number()
	if from, to = after, s.at; number == 0 {
		return from, to, false
	}
	for i := range c.ledger.jobs {
		j := &c.ledger.jobs[i]
		if j.at.Before(after) || j.at.After(s.at) {
			continue
		}
		id, err := strconv.Atoi(j.id)
		switch {
		case err != nil:
		case id < number && j.at.After(from):
			from = j.at
		case id > number && j.at.Before(to):
			to = j.at
		}
	}
	return from, to, true
}

// number is the queue's number for the job; 0 if it has none, as jobs put with a delay.
func (s stay) number() int {
	n, err := strconv.Atoi(jobID{id: s.job}.bare().id)
	if err != nil {
		return 0
	}
	return n
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

// numbersIn reads the numbers of the pushes in a job's body.
func (l *ledger) numbersIn(body string) []uint32 {
	var n uint32
	if _, err := fmt.Sscanf(body, "number %d is no JSON", &n); err == nil && int(n) < len(l.pushes) {
		return []uint32{n}
	}
	var j struct {
		Token, Ref string
		Tokens     []string
	}
	if json.Unmarshal([]byte(body), &j) != nil {
		return nil
	}
	var out []uint32
	for _, token := range append(j.Tokens, j.Token) {
		if token == "" {
			continue
		}
		n, ok := l.number(token, j.Ref, "")
		if !ok {
			return nil
		}
		out = append(out, n)
	}
	return out
}

// knownReason reports whether a listed reason tells a person something.
func knownReason(reason string) bool {
	return reason != "" && !strings.Contains(reason, "not recorded")
}
