package bench

import (
	"fmt"
	"runtime"

	"propeller/internal/apnslean"
)

// shares are what limitations are judged by: of the time that the first part
// took, or of cores.
type shares struct {
	cores            float64
	own, apns, queue float64 // cores busy with it, on average; apns: the stand-in
	idle             float64 // cores without work
	queueOK, idleOK  bool    // it is known
	queueInside      bool    // the queue's is part of own
	queueServers     int     // beanstalkds

	standIn   bool    // there is one, and so what follows is known
	delayed   bool    // it answers after a while
	conns     int     // connections to it
	blocked   float64 // of the time, without window for another push
	open      float64 // requests without answer, per connection
	inFlight  int     // how many might be, by --in-flight
	oneToken  bool    // per job
	held      float64 // jobs that the workers had
	mayBeHeld int
}

// Limits of a rate.
const (
	limitWindow   = "window"
	limitStreams  = "streams"
	limitInFlight = "in-flight"
	limitQueue    = "queue"
	limitCPU      = "cpu"
	limitOthers   = "other programs"
	limitStandIn  = "stand-in"
	limitUnclear  = "unclear"
)

func (r *benchRig) shares(before, after usage, seen *standInReport) *shares {
	p := r.plan
	took := after.at.Sub(before.at).Seconds()
	s := &shares{
		cores: float64(runtime.GOMAXPROCS(0)),
		own:   (after.own - before.own).Seconds() / took,
		apns:  (after.apns - before.apns).Seconds() / took,
		queue: (after.queue - before.queue).Seconds() / took, queueOK: before.queueOK && after.queueOK,
		idle: (after.idle - before.idle).Seconds() / took, idleOK: before.idleOK && after.idleOK,
		queueInside: r.q.inside, queueServers: len(r.q.servers),
		standIn: r.apns.cmd != nil, delayed: p.rtt > 0, conns: p.workers, inFlight: p.inFlight,
		oneToken: p.fanOut == 1, held: r.held.mean(), mayBeHeld: p.inFlight * p.workers,
	}
	if seen.Active > 0 {
		s.blocked = seen.Blocked.Seconds() / seen.Active.Seconds()
		s.open = seen.Open.Seconds() / seen.Active.Seconds()
	}
	return s
}

// limit judges what the rate was limited by, and says from what.
func (s *shares) limit() (name, why string) {
	const nearly = 0.85 // of what there is, counts as all of it: start and end are in the mean
	most := min(s.inFlight, apnslean.MaxStreams)
	full := s.standIn && s.delayed && s.open >= nearly*float64(most)
	busy := s.cores - s.idle
	switch {
	case s.standIn && s.delayed && s.blocked >= 0.5:
		return limitWindow, fmt.Sprintf("connections had no window left for another payload %s of the time; more --workers are more windows", percent(s.blocked))
	case full && s.inFlight > most:
		return limitStreams, fmt.Sprintf("%.0f of %d streams of a connection were in use on average; more --workers are more streams", s.open, most)
	case full:
		return limitInFlight, fmt.Sprintf("%.0f of --in-flight %d were in use on average", s.open, most)
	case s.queueOK && !s.queueInside && s.queue >= 0.9*float64(s.queueServers):
		return limitQueue, fmt.Sprintf("beanstalkd, which runs on one core, was busy %s of the time", percent(s.queue/float64(s.queueServers)))
	case s.idleOK && busy >= 0.9*s.cores && s.others() > 0.15*s.cores:
		return limitOthers, fmt.Sprintf("they took %.1f of %.0f cores: run it again while nothing else does", s.others(), s.cores)
	case s.idleOK && busy >= 0.9*s.cores:
		return limitCPU, fmt.Sprintf("%.1f of %.0f cores were busy", busy, s.cores)
	case s.standIn && s.apns >= 0.9*float64(s.conns):
		return limitStandIn, "it runs on one core per connection"
	case s.oneToken && s.held < float64(s.mayBeHeld)/2:
		return limitQueue, fmt.Sprintf("the workers held %.0f jobs of the %d that they have room for: the queue gave them no more", s.held, s.mayBeHeld)
	}
	return limitUnclear, "nothing was used up"
}

// others is how many cores were busy with what is not the run's.
func (s *shares) others() float64 {
	used := s.own + s.apns
	if !s.queueInside {
		used += s.queue
	}
	return max(0, s.cores-s.idle-used)
}

// busyCores says who kept how many cores busy.
type busyCores struct {
	Daemon   float64  `json:"daemon"` // this process, an embedded queue with it
	StandIn  *float64 `json:"stand_in,omitempty"`
	Queue    *float64 `json:"beanstalkd,omitempty"`
	Others   *float64 `json:"other_programs,omitempty"`
	Idle     *float64 `json:"idle,omitempty"`
	Together float64  `json:"of"`
}

func (s *shares) busyCores() busyCores {
	b := busyCores{Daemon: s.own, Together: s.cores}
	if s.standIn {
		b.StandIn = &s.apns
	}
	if s.queueOK && !s.queueInside {
		b.Queue = &s.queue
	}
	if s.idleOK {
		others := s.others()
		b.Others, b.Idle = &others, &s.idle
	}
	return b
}

func (b *busyCores) String() string {
	text := fmt.Sprintf("here %.2f", b.Daemon)
	for _, part := range []struct {
		who   string
		cores *float64
	}{{"beanstalkd", b.Queue}, {"stand-in", b.StandIn}, {"other programs", b.Others}, {"idle", b.Idle}} {
		if part.cores != nil {
			text += fmt.Sprintf(", %s %.2f", part.who, *part.cores)
		}
	}
	return text + fmt.Sprintf(", of %.0f", b.Together)
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
