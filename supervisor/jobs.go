package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"propeller/queue"
	"propeller/queue/journal"
	"propeller/worker"
)

var (
	// ErrNoApp: no app of the configuration has this topic.
	ErrNoApp = errors.New("no such app")
	// ErrNoAdmin: the queue lets nobody see or settle buried jobs.
	ErrNoAdmin = errors.New("this queue cannot be asked about its jobs")
)

// Jobs is the operator's view of an app's buried jobs, and the tube that they
// are in. Errors: ErrNoApp, ErrNoAdmin.
func (s *Supervisor) Jobs(topic string) (v journal.Jobs, tube string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[topic]
	if a == nil {
		return v, "", fmt.Errorf("topic %q: %w", topic, ErrNoApp)
	}
	admin, ok := s.queue.(queue.Admin)
	if !ok {
		return v, "", ErrNoAdmin
	}
	return journal.Jobs{Queue: admin, Journal: s.journal(), Explain: Explain(topic)}, a.cfg.Tube, nil
}

// Put puts a job in an app's tube, to be served after delay. Errors: ErrNoApp,
// those of queue.Queue.
func (s *Supervisor) Put(ctx context.Context, topic string, body []byte, delay time.Duration) (id string, err error) {
	s.mu.Lock()
	a, q := s.apps[topic], s.queue
	s.mu.Unlock()
	if a == nil {
		return "", fmt.Errorf("topic %q: %w", topic, ErrNoApp)
	}
	id, err = q.Put(ctx, a.cfg.Tube, body, queue.PutOptions{Delay: delay})
	a.puts.note(err, time.Now())
	return id, err
}

// NewJob is a job for PutAll.
type NewJob struct {
	Topic string
	Body  []byte
	Delay time.Duration
}

// PutAll puts jobs at less cost than one by one, and returns what Put would have
// for each, in their order. All are under way at the same time.
func (s *Supervisor) PutAll(ctx context.Context, jobs []NewJob) []queue.Stored {
	out := make([]queue.Stored, len(jobs))
	known := make([]queue.NewJob, 0, len(jobs)) // those that have an app
	place := make([]int, 0, len(jobs))          // of each of them in jobs
	apps := make([]*app, 0, len(jobs))
	s.mu.Lock()
	q := s.queue
	for i, j := range jobs {
		a := s.apps[j.Topic]
		if a == nil {
			out[i].Err = fmt.Errorf("topic %q: %w", j.Topic, ErrNoApp)
			continue
		}
		known = append(known, queue.NewJob{Tube: a.cfg.Tube, Body: j.Body, PutOptions: queue.PutOptions{Delay: j.Delay}})
		place, apps = append(place, i), append(apps, a)
	}
	s.mu.Unlock()
	for i, stored := range queue.PutAll(ctx, q, known) {
		out[place[i]] = stored
		apps[i].puts.note(stored.Err, time.Now())
	}
	return out
}

// Pause holds an app: it takes no jobs until Resume, whatever a reload changes.
// reason is for its status. Errors: ErrNoApp.
func (s *Supervisor) Pause(topic, reason string) error {
	a, err := s.app(topic)
	if err == nil {
		a.ledger.hold.Pause(reason)
	}
	return err
}

// Resume lets an app go on that is held, broken or paused: what is wrong with it
// is over, says whoever asks for it. Errors: ErrNoApp.
func (s *Supervisor) Resume(topic string) error {
	a, err := s.app(topic)
	if err == nil {
		a.common.Breaker.Resume()
		a.ledger.hold.Resume()
	}
	return err
}

func (s *Supervisor) app(topic string) (*app, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[topic]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("topic %q: %w", topic, ErrNoApp)
}

// views are the views of all apps, by their tubes; none if the queue cannot be
// asked.
func (s *Supervisor) views() map[string]journal.Jobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	admin, ok := s.queue.(queue.Admin)
	if !ok {
		return nil
	}
	out := make(map[string]journal.Jobs, len(s.apps))
	for topic, a := range s.apps {
		out[a.cfg.Tube] = journal.Jobs{Queue: admin, Journal: s.journal(), Explain: Explain(topic)}
	}
	return out
}

// journal is the journal at present, or nil.
func (s *Supervisor) journal() *journal.Journal {
	if s.o.Journal == nil {
		return nil
	}
	return s.o.Journal()
}

// Explain returns what finds the reason why a job of an app was buried that the
// journal does not know.
func Explain(topic string) func(body []byte) string {
	return func(body []byte) string {
		if b := worker.BurialOf(body, topic); b.Reason != worker.NotRecorded {
			return b.Reason
		}
		return ""
	}
}

// notes are the workers' way to the journal that there is at the time.
func notes(journalNow func() *journal.Journal, topic, tube string) func(string, worker.Burial) {
	return func(id string, b worker.Burial) {
		if j := journalNow(); j != nil {
			j.Buried(journal.Entry{
				ID: id, Topic: topic, Tube: tube, Class: b.Class, Status: b.Status, Reason: b.Reason,
				Token: b.Token, Ref: b.Ref, APNsID: b.APNsID, At: b.At,
			})
		}
	}
}
