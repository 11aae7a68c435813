package jetstream

import (
	"context"
	"strings"
	"time"
)

const (
	// overviewAge is how old an overview may be. What this process does itself
	// makes it void at once; other programs' jobs may be seen so much later.
	overviewAge = time.Second
	// overviewMax is the most subjects of a stream that are listed: a subject is
	// a tube that has jobs, or one delayed or buried job. With more of them it
	// is cheaper to ask for each tube.
	overviewMax = 5000
)

// overview is how many messages each tube has in the streams. A daemon with a
// thousand tubes asks for their numbers all at once, and most have nothing.
type overview struct {
	taken   time.Time
	changes uint64                // of calls: later ones make it void
	tubes   map[string]tubeCounts // those that have something; nil: not known
}

// tubeCounts are a tube's messages.
type tubeCounts struct{ jobs, delayed, buried int }

// overviews keeps the last overview for one caller at a time.
type overviews struct {
	turn slots // one
	last overview
}

// overview returns a tube's counts, if they are known without asking for this
// tube.
func (q *client) overview(ctx context.Context, cn *conn, name string) (n tubeCounts, known bool, err error) {
	if err := q.overviews.turn.take(ctx); err != nil {
		return n, false, err
	}
	defer q.overviews.turn.giveBack()
	o := &q.overviews.last
	if time.Since(o.taken) >= overviewAge {
		*o = overview{taken: time.Now()}
		if err := q.takeOverview(ctx, cn, o); err != nil {
			return n, false, err
		}
	} else if o.changes != q.calls.changes.Load() {
		return n, false, nil
	}
	n = o.tubes[name]
	return n, o.tubes != nil, nil
}

// takeOverview asks for all tubes. If something changes meanwhile it is of use to who
// asked for it, and void for the next.
func (q *client) takeOverview(ctx context.Context, cn *conn, o *overview) error {
	changes := q.calls.changes.Load()
	tubes := make(map[string]tubeCounts)
	for _, stream := range []string{jobsStream, buriedStream} {
		info, err := q.streamInfo(ctx, cn, stream, "", 0)
		if err != nil {
			return err
		}
		switch n := info.State.NumSubjects; {
		case n > overviewMax:
			return nil
		case n == 0:
			continue
		}
		if info, err = q.streamInfo(ctx, cn, stream, ">", 0); err != nil {
			return err
		}
		for subject, n := range info.State.Subjects {
			addSubject(tubes, subject, n)
		}
	}
	o.tubes, o.changes = tubes, changes
	return nil
}

// addSubject adds the messages of a subject to those of its tube.
func addSubject(tubes map[string]tubeCounts, subject string, n int) {
	tube := tubeOf(subject)
	if tube == "" {
		return
	}
	c := tubes[tube]
	switch {
	case strings.HasPrefix(subject, jobPrefix):
		c.jobs += n
	case strings.HasPrefix(subject, schedPrefix):
		c.delayed += n
	default:
		c.buried += n
	}
	tubes[tube] = c
}
