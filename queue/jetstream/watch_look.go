package jetstream

import (
	"context"
	"time"
)

// What a look at the stream must not miss: a tube is subscribed to, then marked asleep, then
// its jobs are counted, all on one connection. A put before the subscription is in the count,
// and one after it is heard; one that the server had read by then and not yet stored is
// neither, but moves the stream's last message beyond the one that was last seen. So that is
// noted only together with a list of all subjects that have jobs: what is stored up to it was
// there to be listed, or belongs to a tube that fell asleep, and was counted, later.

// fewTubes is how many tubes are asked for one by one when they fall asleep. A list of all
// that have jobs takes 1.4 µs for each of them.
const fewTubes = 8

// lastMessage is the last message of a stream.
type lastMessage struct {
	made time.Time // the stream
	seq  uint64
}

// keep looks at what has changed, and at the stream every watchEvery, until the Watch is closed.
func (w *watch) keep() {
	defer w.unsubscribeAll()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		due := false
		select {
		case <-w.ctx.Done():
			return
		case <-w.look:
		case <-tick.C:
			due = true
		}
		err := w.round(due)
		if err != nil && w.ctx.Err() == nil {
			err = unavailable(err)
		}
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
	}
}

// round is one look. due says that the stream has to be looked at, too.
func (w *watch) round(due bool) error {
	if w.denied.Load() != nil { // else each new connection would begin with all refusals, a flood
		w.unsubscribeAll()
	}
	cn, epoch, _, err := w.q.link.ready()
	if err != nil {
		return err
	}
	if epoch != w.epoch {
		w.epoch, w.seen, w.allowed = epoch, lastMessage{}, false // something may have been missed
		w.askAgain()
	} else if due && time.Since(w.asked) > w.q.opts.lookEvery {
		w.askAgain()
	}
	asleep := w.subscribe(cn)
	w.tell()
	err = w.find(cn, asleep, due)
	if err != nil && len(asleep) > 0 {
		w.seen = lastMessage{} // they have to be looked for when it can be done
	}
	return err
}

// askAgain has the tubes subscribed to after all, if the user was not allowed to before.
func (w *watch) askAgain() {
	w.asked = time.Now()
	if w.denied.Swap(nil) != nil {
		w.allowed = false
		w.unsubscribeAll()
		w.change(w.sleepers.All()...)
	}
}

// tell logs once that tubes cannot be subscribed to.
func (w *watch) tell() {
	if why := w.denied.Load(); why != nil && !w.told {
		w.told = true
		w.q.opts.Log.Warn("queue: jobs put by other programs wake a sleeping app up to 0.25 s late", "queue", w.q.opts.String(), "err", *why)
	}
}

// find wakes those tubes that have jobs.
func (w *watch) find(cn *conn, asleep []string, due bool) error {
	ctx, cancel := context.WithTimeout(w.ctx, w.q.opts.timeout)
	defer cancel()
	if w.seen == (lastMessage{}) || len(asleep) > fewTubes {
		return w.list(ctx, cn)
	}
	for _, tube := range asleep {
		n, err := w.q.countOne(ctx, cn, jobSubject(tube))
		if err != nil {
			return err
		}
		if n > 0 {
			w.wake(tube)
		}
	}
	if !due || w.sleepers.Len() == 0 {
		return nil
	}
	info, err := w.q.streamInfo(ctx, cn, jobsStream, "", 0)
	if err != nil || w.seen == (lastMessage{info.Created, info.State.LastSeq}) {
		return err
	}
	return w.list(ctx, cn)
}

// list wakes all tubes that sleep and have jobs.
func (w *watch) list(ctx context.Context, cn *conn) error {
	var first streamInfo
	for offset := 0; ; {
		w.q.expectLarge()
		info, err := w.q.streamInfo(ctx, cn, jobsStream, jobPrefix+">", offset)
		if err != nil {
			return err
		}
		if offset == 0 {
			first = info
		}
		for subject := range info.State.Subjects {
			w.wake(tubeOf(subject))
		}
		n := len(info.State.Subjects)
		if offset += n; n > 0 && offset < info.Total {
			continue
		}
		w.seen = lastMessage{first.Created, first.State.LastSeq}
		if info.Total != first.Total { // some may have slipped from one part of the list into another
			w.seen.seq = 0
		}
		return nil
	}
}
