package worker

import "propeller/apnsconn"

// chunk is some of the pushes made for a task.
type chunk struct {
	pushes    []push // nil once all of a list's are among delivered
	finished  int    // how many have been delivered
	delivered []Delivery
}

func (t *task) addChunk(pushes []push) {
	for i := range pushes {
		pushes[i].chunk = len(t.chunks)
	}
	t.chunks = append(t.chunks, chunk{pushes: pushes})
}

// finish notes that a push was delivered. Of a list's chunk of which all was, only what
// is told of it stays: very many may wait for the last one of their list.
func (t *task) finish(p *push) {
	t.delivered++
	c := &t.chunks[p.chunk]
	if c.finished++; !t.list() || c.finished < len(c.pushes) {
		return
	}
	c.delivered = make([]Delivery, len(c.pushes))
	for i := range c.pushes {
		c.delivered[i] = c.pushes[i].delivery()
	}
	c.pushes = nil
}

func (p *push) delivery() Delivery {
	return Delivery{p.n.Token, p.outcome.APNsID, p.began.Add(p.took), p.took}
}

// each yields what was delivered, until yield returns false.
func (c *chunk) each(yield func(Delivery) bool) bool {
	for _, d := range c.delivered {
		if !yield(d) {
			return false
		}
	}
	for i := range c.pushes {
		if p := &c.pushes[i]; p.outcome.Class == apnsconn.Delivered && p.over.Load() && !yield(p.delivery()) {
			return false
		}
	}
	return true
}
