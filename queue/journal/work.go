package journal

import "errors"

var (
	errJournalClosed = errors.New("journal: closed")
	errGivenUp       = errors.New("journal: given up: its file was damaged again and again")
)

// do runs f on the database, after what waits to be written. A journal that
// turns out to be damaged is begun anew, and f runs on the new one.
func (j *Journal) do(f func(*store) error) error {
	j.work.Lock()
	defer j.work.Unlock()
	_ = j.flushLocked() // what cannot be written now must not keep others from reading
	return j.doLocked(f)
}

func (j *Journal) doLocked(f func(*store) error) error {
	if j.st == nil {
		if j.renewed > maxRenewals {
			return errGivenUp
		}
		return errJournalClosed
	}
	err := f(j.st)
	if !isDamage(err) {
		return err
	}
	if err := j.renewLocked(err); err != nil {
		return err
	}
	return f(j.st)
}

// renewLocked begins the file anew that has become unreadable.
func (j *Journal) renewLocked(why error) error {
	j.st.abandon()
	j.st = nil
	j.renewed++
	if j.renewed > maxRenewals {
		j.log.Error("journal of buried jobs given up: reasons are in the log only", "err", why)
		return errGivenUp
	}
	st, err := j.anew(why)
	if err != nil {
		j.renewed = maxRenewals + 1 // another try would not end better
		j.log.Error("journal of buried jobs given up: reasons are in the log only", "err", err)
		return err
	}
	j.st = st
	return nil
}

// flushLocked writes what waits in the buffer. What cannot be written is
// dropped and counted: it is in the log as well, and to keep it would only move
// the bound. j.work is held.
func (j *Journal) flushLocked() error {
	j.mu.Lock()
	batch, overflow := j.buffer, j.overflow
	j.buffer, j.overflow = nil, 0
	j.mu.Unlock()
	if overflow > 0 {
		j.log.Warn("journal of buried jobs: more jobs buried than could be written down, their reasons are in the log only",
			"entries", overflow)
	}
	var failed error
	lost := 0
	for len(batch) > 0 {
		n := min(len(batch), batchSize)
		err := j.doLocked(func(st *store) error { return st.write(batch[:n], j.limit, replaceOld) })
		if err != nil {
			failed = err
			lost += n
			j.dropped.Add(int64(n))
		} else if j.failing {
			j.failing = false
			j.log.Info("journal of buried jobs can be written again", "dropped", j.Dropped())
		}
		batch = batch[n:]
	}
	if failed != nil && !j.failing {
		j.failing = true
		j.log.Error("journal of buried jobs cannot be written, reasons are in the log only", "err", failed, "entries", lost)
	}
	return failed
}
