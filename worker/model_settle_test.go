package worker_test

import (
	"context"
	"fmt"
	"time"

	"propeller/queue"
)

type settleKind int

const (
	settleDone settleKind = iota
	settleRetry
	settleBury
)

// settle ends a reservation with the queue's present answers. body replaces a buried job's
// body unless it is nil.
func (l *lease) settle(ctx context.Context, kind settleKind, after time.Duration, body []byte) error {
	m := l.c.m
	m.count(rateSettle)
	m.mu.Lock()
	if l.settled {
		m.fail("twice", "job %d is settled twice by one reservation", l.job.id)
	}
	l.settled = true
	l.c.busy++
	slow := m.queueKind == queueSlowSettles
	m.mu.Unlock()
	takes := time.Millisecond
	if slow {
		takes = 15 * time.Second
	}
	err := sleep(ctx, takes)
	if err == nil {
		err = m.reach(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l.c.busy--
	if slow {
		m.fault()
	}
	return l.settleNow(err, kind, after, body)
}

// settleNow does that when its time has come; err is the error of its context. m.mu is held.
func (l *lease) settleNow(err error, kind settleKind, after time.Duration, body []byte) error {
	m, j := l.c.m, l.job
	switch {
	case l.lost && kind == settleRetry:
		return nil
	case l.lost:
		return fmt.Errorf("model: %w", queue.ErrLost)
	case err != nil && m.chance("cut", j.id, 2): // carried out, but not answered
		l.carryOut(kind, after, body)
		return err
	case err != nil: // the job comes back when the consumer ends
		return err
	case m.queueKind == queueLosesDone && kind == settleDone && m.chance("lost", j.id*100+j.attempts, 2):
		m.fault()
		l.lose()
		return fmt.Errorf("model: %w", queue.ErrLost)
	case m.queueKind == queueRefusesBurials && kind == settleBury: // it stays reserved, and may be tried again
		m.fault()
		l.settled = false
		return fmt.Errorf("model: %w", queue.ErrUnavailable)
	case m.queueKind == queueRefusesBurials && kind != settleDone:
		m.fault()
		time.AfterFunc(ttr, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.fault(); j.lease == l {
				j.due = time.Time{}
				l.lose()
			}
		})
		return fmt.Errorf("model: %w", queue.ErrUnavailable)
	}
	l.carryOut(kind, after, body)
	return nil
}

func (l *lease) carryOut(kind settleKind, after time.Duration, body []byte) {
	m, j := l.c.m, l.job
	delete(l.c.leases, l)
	m.log("job %d settled: %s after %v", j.id, [...]string{"done", "retry", "bury"}[kind], after)
	switch kind {
	case settleDone:
		j.state, j.lease = gone, nil
		delete(m.jobs, j.id)
		m.close(j)
	case settleRetry:
		m.giveBack(j, after)
	case settleBury:
		if body != nil {
			m.rewrite(j, body)
		}
		j.state, j.lease = buried, nil
		m.setAside(j)
	}
}
