package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// evidenceName is the file with a run's evidence, from which it can be judged again.
const evidenceName = "evidence.json"

// evidence is what only the run itself knows; the rest is in its other files.
type evidence struct {
	Apps     int // 0: the busy ones
	Jobs     []jobEntry
	Fates    []fate // by push
	Lives    []lifeEntry
	Troubles []spanEntry
	Misled   []spanEntry // What is the topic
	Removals []removalEntry
	Buried   map[string]map[string]string
	Listed   map[string]pageEntry
	Waiting  []string
	Stored   []bool      // the sequencer's records
	At       []time.Time // when each of them was put
	Junk     int
	Late     []time.Time
	Ending   []string // what had not ended in time
	Others   []string // what the hands and readers found
}

type (
	jobEntry struct {
		First      uint32
		Count, App int
		Kind       kind
		Many       bool
		ID         string
		At         time.Time
		Stored     bool
	}
	lifeEntry struct {
		Began, Ended time.Time
		Killed       bool
	}
	spanEntry struct {
		What     string
		From, To time.Time
	}
	removalEntry struct {
		spanEntry // What is the stream
		Bodies    []string
	}
	pageEntry struct {
		Reasons map[string]string
		More    bool
	}
)

func (s span) entry() spanEntry { return spanEntry{s.what, s.from, s.to} }

func (s spanEntry) span() span { return span{s.What, s.From, s.To} }

// evidence collects a run's evidence.
func (r *run) evidence(buried map[string]map[string]string, listed map[string]page, waiting []string) *evidence {
	e := &evidence{Apps: r.at.apps, Buried: buried, Listed: make(map[string]pageEntry), Waiting: waiting, Stored: r.sequence.stored, At: r.sequence.at, Junk: r.sequence.junk, Late: r.putOff()}
	for _, j := range r.ledger.jobs {
		e.Jobs = append(e.Jobs, jobEntry{j.first, j.count, j.app, j.kind, j.many, j.id, j.at, j.stored})
	}
	for _, p := range r.ledger.pushes {
		e.Fates = append(e.Fates, p.fate)
	}
	for _, l := range r.daemon.lives {
		e.Lives = append(e.Lives, lifeEntry{l.began, l.ended, l.killed})
	}
	for _, t := range r.at.troubles {
		e.Troubles = append(e.Troubles, t.entry())
	}
	for _, m := range r.daemon.misled {
		e.Misled = append(e.Misled, spanEntry{m.topic, m.from, m.to})
	}
	for _, one := range r.engine.removed() {
		e.Removals = append(e.Removals, removalEntry{spanEntry{one.stream, one.from, one.to}, one.bodies})
	}
	for tube, p := range listed {
		e.Listed[tube] = pageEntry{p.reasons, p.more}
	}
	return e
}

// court returns the court that judges by the evidence and the files in a folder.
func (e *evidence) court(at *site) (*court, error) {
	l := new(ledger)
	for i, j := range e.Jobs {
		l.jobs = append(l.jobs, job{j.First, j.Count, j.App, j.Kind, j.Many, j.ID, j.At, j.Stored})
		for _, f := range e.Fates[j.First:][:j.Count] {
			l.pushes = append(l.pushes, push{uint32(i), f})
		}
	}
	c := &court{ledger: l, apps: e.Apps, buried: e.Buried, listed: make(map[string]page), waiting: l.traces(e.Waiting...), junk: e.Junk}
	for _, one := range e.Lives {
		c.lives = append(c.lives, life{one.Began, one.Ended, one.Killed})
	}
	for _, t := range e.Troubles {
		c.troubles = append(c.troubles, t.span())
	}
	for _, m := range e.Misled {
		c.misled = append(c.misled, mislead{m.What, span{"wrong environment", m.From, m.To}})
	}
	var all []removal
	for _, r := range e.Removals {
		all = append(all, removal{r.What, r.span(), r.Bodies})
	}
	c.removed = newRemoved(all, l)
	for tube, p := range e.Listed {
		c.listed[tube] = page{p.Reasons, p.More}
	}
	var err error
	c.said, err = hear(at, l, c.removed.expected(e.Stored, e.At, c.waiting), e.Late)
	return c, err
}

// save keeps the evidence in a folder.
func (e *evidence) save(at *site) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return at.write(evidenceName, text)
}

// judgeAgain judges the run that an earlier process left in a folder.
func judgeAgain(dir string, out io.Writer) error {
	at := &site{dir: dir}
	text, err := os.ReadFile(at.path(evidenceName))
	if err != nil {
		return err
	}
	e := new(evidence)
	if err := json.Unmarshal(text, e); err != nil {
		return fmt.Errorf("%s: %w", evidenceName, err)
	}
	_, err = e.judge(at, out)
	return err
}

// judge prints the account and says whether the run has passed.
func (e *evidence) judge(at *site, out io.Writer) (a *account, err error) {
	c, err := e.court(at)
	if err != nil {
		return nil, err
	}
	a = c.judge()
	a.print(out)
	faults := append(append(append([]string(nil), e.Ending...), a.faults()...), e.Others...)
	a.all = faults
	if len(faults) == 0 {
		fmt.Fprintln(out, "passed")
		return a, nil
	}
	fmt.Fprintln(out)
	for _, f := range faults {
		fmt.Fprintln(out, "FAULT", f)
	}
	a.stories(out, at)
	return a, errFailed
}
