package beanstalk

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
)

// standby is a tube that always exists. It stands on the watch list, which must not be empty,
// while nothing is swept. Nothing is reserved then.
const standby = "default"

type watchCommand struct{ verb, tube string }

// watch takes tubes on the connection's watch list, and others off it. Those that are there
// already, or are not there, do not matter.
func (s *sweeper) watch(add, drop []string) error {
	var commands []watchCommand
	idle := s.swept.len() == 0
	for _, tube := range add {
		if !s.swept.has(tube) {
			s.swept.add(tube)
			commands = append(commands, watchCommand{"watch ", tube})
		}
	}
	var ignored []string
	for _, tube := range drop {
		if s.swept.has(tube) {
			s.swept.remove(tube)
			ignored = append(ignored, tube)
		}
	}
	idles := s.swept.len() == 0
	if idles && !idle {
		commands = append(commands, watchCommand{"watch ", standby})
	}
	for _, tube := range ignored {
		if !idles || tube != standby {
			commands = append(commands, watchCommand{"ignore ", tube})
		}
	}
	if idle && !idles && !s.swept.has(standby) {
		commands = append(commands, watchCommand{"ignore ", standby})
	}
	return each(s.c, commands,
		func(out []byte, c watchCommand) []byte { return append(append(out, c.verb...), c.tube...) },
		func(c watchCommand, line []byte) error {
			if !bytes.HasPrefix(line, []byte("WATCHING ")) {
				return fmt.Errorf("%s%s: %w", c.verb, c.tube, unexpected(line))
			}
			return nil
		})
}

const (
	// sweptAtOnce bounds the jobs that one round finds. It needs a millisecond for each on
	// a server with 10,000 tubes.
	sweptAtOnce = 64
	// heldAtOnce bounds the jobs held together, which is for a few milliseconds. They may
	// all be of one tube.
	heldAtOnce = 16
)

// sweep reserves what is ready in the swept tubes, and hands it over. more says that there
// may be more.
//
// A job is held for less than its TTR, which is a second or more. If it is not, or if the
// connection breaks, the server serves it again by itself. The server counts the reserve,
// and so does srv.sweeps.
func (s *sweeper) sweep() (more bool, err error) {
	n := 1
	for found := 0; found < sweptAtOnce; n = min(2*n, heldAtOnce) {
		if s.swept.len() == 0 {
			return false, nil
		}
		ids, err := s.reserve(n)
		if err != nil {
			return false, err
		}
		if err := s.handOver(ids); err != nil {
			return false, err
		}
		if found += len(ids); len(ids) < n {
			return false, nil
		}
	}
	return true, nil
}

// reserve reserves up to n jobs without waiting. Their bodies are not kept.
func (s *sweeper) reserve(n int) (ids []uint64, err error) {
	err = each(s.c, make([]struct{}, n),
		func(out []byte, _ struct{}) []byte { return append(out, "reserve-with-timeout 0"...) },
		func(_ struct{}, line []byte) error {
			id, err := s.c.reserved(line)
			if id != 0 {
				ids = append(ids, id)
			}
			return err
		})
	return ids, err
}

// heldJob is a job for a moment in the hand of the sweeper.
type heldJob struct {
	id   uint64
	tube string
	pri  string // as the server writes it
}

// handOver gives jobs back, at their own place in their tubes, and wakes those. They are
// taken off the watch list before: else the next reserve would bring the same jobs.
func (s *sweeper) handOver(ids []uint64) error {
	if len(ids) == 0 {
		return nil
	}
	s.loop.srv.swept(s.instance, ids)
	held, err := s.identify(ids)
	if err != nil {
		return err
	}
	tubes := newTubeSet()
	for _, j := range held {
		tubes.add(j.tube)
	}
	if err := s.watch(nil, tubes.names); err != nil {
		return err
	}
	if err := s.release(held); err != nil {
		return err
	}
	s.found += len(tubes.names)
	for _, tube := range tubes.names {
		s.loop.w.sleepers.Wake(tube)
	}
	return nil
}

// identify asks for the tubes and priorities of jobs, which the answer to a reserve does not
// tell. Jobs that are gone are absent.
func (s *sweeper) identify(ids []uint64) (held []heldJob, err error) {
	err = each(s.c, ids,
		func(out []byte, id uint64) []byte { return strconv.AppendUint(append(out, "stats-job "...), id, 10) },
		func(id uint64, line []byte) error {
			if string(line) == "NOT_FOUND" {
				return nil
			}
			if err := s.c.readBody(line, maxStats); err != nil {
				return err
			}
			j := heldJob{id: id, tube: s.c.text("\ntube: "), pri: s.c.text("\npri: ")}
			if _, err := strconv.ParseUint(j.pri, 10, 32); err != nil {
				return fmt.Errorf("server statistics: pri %.30q: %w", j.pri, err)
			}
			held = append(held, j)
			return nil
		})
	return held, err
}

// release gives jobs back to their tubes, where their ids decide on their places.
func (s *sweeper) release(held []heldJob) error {
	return each(s.c, held,
		func(out []byte, j heldJob) []byte { return fmt.Appendf(out, "release %d %s 0", j.id, j.pri) },
		func(j heldJob, line []byte) error {
			switch string(line) {
			case "RELEASED", "NOT_FOUND": // the second: its TTR was over
			case "BURIED": // protocol.txt, release
				s.loop.srv.few.Log(slog.LevelWarn, "the queue server had no memory to take a job back, and buried it",
					"tube", j.tube, "job", s.loop.srv.jobID(j.id))
			default:
				return fmt.Errorf("release: %w", unexpected(line))
			}
			return nil
		})
}
