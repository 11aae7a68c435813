package httpapi

import (
	"context"

	"propeller/worker/buried"
)

// Local is what the API does with one tube's buried jobs, without the API: for
// the server, and for whoever has the queue at hand and no daemon. Client does
// the same over a socket.
type Local struct {
	Jobs buried.Jobs
}

// List lists the selected buried jobs. The list may be incomplete, which it says; an
// error means that there is none at all.
func (l Local) List(ctx context.Context, s Selection) (BuriedList, error) {
	if s.Limit < 0 || s.Limit > MaxJobs {
		return BuriedList{}, errLimit
	}
	known, err := l.Jobs.List(ctx, buried.Filter{Reason: s.Reason, Limit: orMax(s.Limit), Since: unixTime(s.Since)})
	list := BuriedList{Jobs: []BuriedJob{}, More: known.More, Complete: known.Complete}
	for i := range known.Items {
		list.Jobs = append(list.Jobs, buriedOf(&known.Items[i]))
	}
	list.Incomplete, err = partly(len(list.Jobs), err)
	list.Complete = list.Complete && list.Incomplete == ""
	return list, err
}

// Show returns one buried job with its body.
func (l Local) Show(ctx context.Context, id string) (BuriedJob, error) {
	it, err := l.Jobs.Show(ctx, id)
	if err != nil {
		return BuriedJob{}, err
	}
	return buriedOf(&it), nil
}

// Kick has the chosen jobs served again.
func (l Local) Kick(ctx context.Context, c Choice) (Settled, error) {
	return l.settle(ctx, c, l.Jobs.Kick)
}

// Delete removes the chosen jobs for good.
func (l Local) Delete(ctx context.Context, c Choice) (Settled, error) {
	return l.settle(ctx, c, l.Jobs.Delete)
}

func (l Local) settle(ctx context.Context, c Choice, do func(context.Context, buried.Filter) (buried.Result, error)) (Settled, error) {
	f, err := c.filter()
	if err != nil {
		return Settled{}, err
	}
	r, err := do(ctx, f)
	s := Settled{Jobs: len(r.Jobs), IDs: r.Jobs, More: r.More}
	s.Incomplete, err = partly(s.Jobs, err)
	return s, err
}

// partly turns the error of something that did n jobs into a note of the
// answer, or leaves it an error if nothing was done.
func partly(n int, err error) (incomplete string, _ error) {
	if n > 0 && err != nil {
		return err.Error(), nil
	}
	return "", err
}
