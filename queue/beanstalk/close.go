package beanstalk

import "context"

// awaitSettles waits until no settle call is in progress.
func (src *source) awaitSettles(ctx context.Context) error {
	src.srv.mu.Lock()
	if src.settles == 0 {
		src.srv.mu.Unlock()
		return nil
	}
	if src.settled == nil {
		src.settled = make(chan struct{})
	}
	settled := src.settled
	src.srv.mu.Unlock()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close gives back every unsettled job and ends the connection. Settle calls
// still waiting get ErrLost.
func (src *source) close() {
	srv := src.srv
	var foreign []*job // reserved by other consumers' connections, for ours
	var sessions []*session
	srv.mu.Lock()
	src.closed = true
	src.stop()
	// Out of the registry before the connection ends: another consumer may
	// reserve them at that moment, and must deliver them.
	for _, j := range srv.jobs {
		if j.src == src && !j.settling {
			if j.sess.aliveLocked() && j.sess.src != src {
				foreign = append(foreign, j)
				continue
			}
			j.forgetLocked()
		}
	}
	for j := range src.pending {
		delete(src.pending, j)
		j.forgetLocked()
		j.result <- j.lost()
	}
	for s := range srv.sessions {
		if s.src == src {
			sessions = append(sessions, s)
		}
	}
	if len(foreign) > 0 {
		srv.spawnLocked(func() { parallel(reservers, foreign, (*job).giveBack) })
	}
	srv.mu.Unlock()
	for _, s := range sessions {
		s.fail(errClosed, false)
	}
}
