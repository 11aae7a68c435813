package supervisor

import (
	"errors"
	"fmt"
	"sync"

	"propeller/config"
	"propeller/queue"
	"propeller/queue/queueurl"
)

// ErrStopping is returned by Apply once the daemon is stopping.
var ErrStopping = errors.New("supervisor: stopping")

// Apply changes the running apps to those of cfg. Everything that can fail comes first, so on an
// error nothing has changed. Apps that stay the same keep their connections, a different number
// of workers only adds or removes workers, and a changed app is replaced by its successor before
// it drains. What was removed drains after Apply has returned. Apply waits until Serve runs,
// because adding to a suture supervisor that is just starting is a race.
func (s *Supervisor) Apply(cfg *config.Config) error {
	<-s.started
	err := s.apply(cfg)
	if err == nil {
		select {
		case s.reloaded <- struct{}{}:
		default:
		}
	}
	return err
}

func (s *Supervisor) apply(cfg *config.Config) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	select {
	case <-s.ended:
		return ErrStopping
	default:
	}
	q, moved, err := s.openQueue(cfg.Queue)
	if err != nil {
		return err
	}
	if err := s.startMock(cfg); err != nil {
		if moved {
			err = errors.Join(err, q.Close())
		}
		return err
	}
	// From here on nothing fails.
	s.setLive(cfg)
	former, users := s.queue, s.users
	if moved {
		s.buried.Reset()
	}
	s.drain(s.change(cfg, q, moved))
	if moved {
		s.users = new(sync.WaitGroup)
		if former != nil {
			s.draining.Go(func() { s.closeFormer(former, users) })
		}
	}
	return nil
}

func (s *Supervisor) openQueue(u queueurl.URL) (q queue.Queue, moved bool, err error) {
	if s.queue != nil && u.Equal(s.url) {
		return s.queue, false, nil
	}
	q, err = s.o.OpenQueue(u)
	if err != nil {
		return nil, false, fmt.Errorf("supervisor: queue: %w", err)
	}
	return q, true, nil
}

func (s *Supervisor) setLive(cfg *config.Config) {
	s.live.Drain.Store(int64(cfg.ShutdownTimeout))
	s.live.LogFailures.Store(cfg.Log.Pushes != config.PushesNone)
	s.live.LogDelivered.Store(cfg.Log.Pushes == config.PushesAll)
	if s.period.Swap(int64(cfg.Watchdog)) != int64(cfg.Watchdog) {
		select {
		case s.periodChanged <- struct{}{}:
		default:
		}
	}
}

// change starts new apps and removes those that cfg does not have. It returns what it removed,
// which still drains.
func (s *Supervisor) change(cfg *config.Config, q queue.Queue, moved bool) (gone []*joinable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue, s.url = q, cfg.Queue
	wanted := make(map[string]bool, len(cfg.Apps))
	var fresh []*app
	for i := range cfg.Apps {
		c := &cfg.Apps[i]
		wanted[c.Name] = true
		was := s.apps[c.Name]
		gone = append(gone, s.place(c, moved)...)
		if a := s.apps[c.Name]; a != was {
			fresh = append(fresh, a)
		}
	}
	for name, a := range s.apps {
		if !wanted[name] {
			s.o.Log.Info("app removed", "app", name, "topic", a.cfg.Topic)
			gone = append(gone, s.removeLocked(a)...)
			delete(s.apps, name)
		}
	}
	s.nameTopics()
	s.lanes.forget(s.apps)
	s.layDown(fresh, moved)
	return gone
}

// place replaces the running app of a name by that of a configuration, if they differ. It
// returns what it removed, which still drains. s.mu is held.
func (s *Supervisor) place(c *config.App, moved bool) (gone []*joinable) {
	old, use := s.apps[c.Name], c
	if old != nil && c.Broken() {
		kept := c.Keep(old.cfg)
		use = &kept
	}
	if old != nil && !moved && old.cfg.Same(use) {
		s.note(old, c)
		old.pace(use.MaxRate)
		return s.resize(old, use.Workers)
	}
	a := s.start(use)
	s.apps[c.Name] = a
	s.note(a, c)
	if old != nil {
		s.o.Log.Info("app changed", "app", c.Name, "topic", c.Topic)
		if old.tree != nil {
			s.wakeLocked(a) // before the old one drains
		}
		gone = append(gone, s.removeLocked(old)...)
	}
	return gone
}

// drain waits in the background for what was removed. applying is held.
func (s *Supervisor) drain(gone []*joinable) {
	users := s.users
	for _, w := range gone {
		users.Add(1)
		s.draining.Go(func() {
			defer users.Done()
			w.wait()
		})
	}
}

// closeFormer closes a queue that no app uses any more, once everything that drains into it has
// ended, including what earlier reloads removed.
func (s *Supervisor) closeFormer(former queue.Queue, users *sync.WaitGroup) {
	users.Wait()
	if err := former.Close(); err != nil {
		s.o.Log.Warn("closing the former queue", "err", err)
	}
}
