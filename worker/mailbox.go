package worker

import "sync"

// mailbox is the only way into a run's state: connections, dials, receivers, settlers and
// the app report to it, and the run's goroutine reads it. It holds at most one entry per
// push in flight and per reserved job, and a handful of others.
type mailbox struct {
	mu   sync.Mutex
	mail mail
	rung chan struct{} // cap 1: there is mail, or something to plan for
}

// mail is everything reported since the mailbox was last read.
type mail struct {
	ended   []*push  // pushes whose outcome is known
	settled []*task  // tasks that a settler has finished with
	other   []func() // anything rare; called by the run's goroutine
}

func newMailbox() mailbox { return mailbox{rung: make(chan struct{}, 1)} }

// ring makes the run plan again. It never blocks.
func (b *mailbox) ring() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

func (b *mailbox) pushEnded(p *push) {
	b.mu.Lock()
	b.mail.ended = append(b.mail.ended, p)
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) taskSettled(t *task) {
	b.mu.Lock()
	b.mail.settled = append(b.mail.settled, t)
	b.mu.Unlock()
	b.ring()
}

func (b *mailbox) post(f func()) {
	b.mu.Lock()
	b.mail.other = append(b.mail.other, f)
	b.mu.Unlock()
	b.ring()
}

// swap moves all mail into m, and reuses m's memory for the mailbox.
func (b *mailbox) swap(m *mail) {
	clear(m.ended)
	clear(m.settled)
	clear(m.other)
	m.ended, m.settled, m.other = m.ended[:0], m.settled[:0], m.other[:0]
	b.mu.Lock()
	b.mail, *m = *m, b.mail
	b.mu.Unlock()
}

// mailboxes are those of an app's workers. A change to what the workers share rings them. The
// zero value is ready for use.
type mailboxes struct {
	mu  sync.Mutex
	all map[*mailbox]struct{}
}

func (b *mailboxes) join(m *mailbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = make(map[*mailbox]struct{})
	}
	b.all[m] = struct{}{}
}

func (b *mailboxes) leave(m *mailbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, m)
}

func (b *mailboxes) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}

func (b *mailboxes) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.all {
		m.ring()
	}
}
