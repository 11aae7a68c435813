package beanstalk

import (
	"bytes"
)

// sweeper looks, over one connection, for tubes that sleep and have a job that a consumer
// could receive. It knows nothing of the time before its connection.
//
// beanstalkd tells of no tube by itself, and a question costs it time for each tube that
// exists, that is, each that has a job or that somebody watches or uses. So tubes that do not
// exist are only looked for in the list of tubes, and that is asked for only while some job is
// ready. Of a tube that appears there the numbers are asked. Where nothing can be received
// (its jobs are delayed, buried or held, its producer has put none, it is paused) the tube is
// swept: this connection watches it and reserves without waiting.
//
// A watched tube goes on existing, which slows the server. So swept tubes are looked at in
// turn, and one without jobs is let go. If it stays because others watch it, other daemons
// perhaps, it is only asked about: two that sweep it would keep it alive for each other.
type sweeper struct {
	loop *watchLoop
	c    *wire

	instance string // id of the server process
	tubes    int    // that exist
	list     []byte // of tubes, as answered last
	unasked  tubeSet
	swept    tubeSet // watched by the connection
	let      tubeSet // empty, and there because others watch them
	wake     []string
	found    int // swept tubes with jobs, in the last round
}

func newSweeper(loop *watchLoop, c *wire) *sweeper {
	return &sweeper{loop: loop, c: c, unasked: newTubeSet(), swept: newTubeSet(), let: newTubeSet()}
}

const (
	// asksAtOnce bounds the tubes that one round asks about: 50 to 100 ms of a server with
	// 10,000 tubes.
	asksAtOnce = 512
	// A round looks at looksCost/(number of tubes) swept tubes, from fewestLooks to mostLooks:
	// what the server needs for each grows with the number of tubes.
	looksCost   = 20_000
	fewestLooks = 2
	mostLooks   = 64
)

// round looks once. more says that the next one should follow at once.
func (s *sweeper) round() (more bool, err error) {
	fresh, err := s.takeChanged()
	if err != nil {
		return false, err
	}
	ready, changed, err := s.stats()
	if err != nil {
		return false, err
	}
	if ready > 0 || changed || fresh || s.let.len() > 0 {
		if err := s.listTubes(fresh); err != nil {
			return false, err
		}
	}
	if err := s.ask(s.toAsk(ready)); err != nil {
		return false, err
	}
	if ready > 0 {
		more, err = s.sweep()
	}
	return more || s.unasked.len() > 0, err
}

// stats asks for the number of ready jobs, and whether there are more tubes now, or fewer.
func (s *sweeper) stats() (ready int, changed bool, err error) {
	if err := s.c.ask("stats", maxStats); err != nil {
		return 0, false, err
	}
	ready, err = s.c.number("\ncurrent-jobs-ready: ")
	if err != nil {
		return 0, false, s.c.broken(err)
	}
	tubes, err := s.c.number("\ncurrent-tubes: ")
	if err != nil {
		return 0, false, s.c.broken(err)
	}
	changed = tubes != s.tubes
	s.tubes, s.instance = tubes, s.c.text("\nid: ")
	return ready, changed, nil
}

// toAsk returns the tubes to ask about: the new ones, and some of the others in turn. If many
// of the swept tubes have jobs, to ask is cheaper than to sweep.
func (s *sweeper) toAsk(ready int) []string {
	ask := s.unasked.newest(asksAtOnce)
	looks := max(fewestLooks, min(looksCost/(s.tubes+1), mostLooks))
	ask = s.swept.some(ask, min(looks+2*s.found, asksAtOnce))
	s.found = 0
	if ready > 0 {
		ask = s.let.some(ask, looks)
	}
	return ask
}

// takeChanged drops the tubes that sleep no longer. fresh says that there are others.
func (s *sweeper) takeChanged() (fresh bool, err error) {
	var awake []string
	for tube := range s.loop.takeChanged() {
		if s.loop.w.sleepers.Has(tube) {
			fresh = fresh || !s.knows(tube)
			continue
		}
		s.unasked.remove(tube)
		s.let.remove(tube)
		awake = append(awake, tube)
	}
	return fresh, s.watch(nil, awake)
}

func (s *sweeper) knows(tube string) bool {
	return s.swept.has(tube) || s.unasked.has(tube) || s.let.has(tube)
}

// listTubes looks for sleeping tubes in the list of tubes. It is read only if it has changed,
// or if other tubes sleep now.
func (s *sweeper) listTubes(fresh bool) error {
	if err := s.c.listTubes(); err != nil {
		return err
	}
	if !fresh && bytes.Equal(s.c.body, s.list) {
		return nil
	}
	s.list, s.c.body = s.c.body, s.list
	there := newTubeSet() // of let
	there.next = s.let.next
	names(s.list, func(name []byte) {
		switch {
		case s.swept.hasName(name) || s.unasked.hasName(name):
		case s.let.hasName(name):
			there.add(string(name))
		default:
			if tube := string(name); s.loop.w.sleepers.Has(tube) {
				s.unasked.add(tube)
			}
		}
	})
	s.let = there
	return nil
}

// ask asks for the numbers of tubes, and deals with each accordingly.
func (s *sweeper) ask(tubes []string) error {
	var watch, ignore []string
	err := s.c.countTubes(tubes, func(tube string, n tubeCounts, exists bool) {
		s.unasked.remove(tube)
		switch {
		case !exists:
			s.list = s.list[:0] // it may be there again by the next list, which would look the same
			ignore = append(ignore, tube)
		case !s.loop.w.sleepers.Has(tube):
			ignore = append(ignore, tube)
		case n.ready > 0 && n.pause == 0:
			ignore = append(ignore, tube)
			s.wake = append(s.wake, tube)
			if s.swept.has(tube) {
				s.found++
			}
		case n.jobs() == 0 && n.using == 0 && n.pause == 0: // a pause would end with the tube
			ignore = append(ignore, tube)
			s.let.add(tube)
			return
		default:
			watch = append(watch, tube)
		}
		s.let.remove(tube)
	})
	if err == nil {
		err = s.watch(watch, ignore)
	}
	if err == nil {
		s.wakeUp()
	}
	return err
}

// wakeUp wakes tubes, which are watched no longer: else the next reserve might take a job
// away from their consumers.
func (s *sweeper) wakeUp() {
	for _, tube := range s.wake {
		s.loop.w.sleepers.Wake(tube)
	}
	s.wake = s.wake[:0]
}
