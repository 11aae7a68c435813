package worker

import (
	"hash/maphash"
	"sync"
)

// maxFailing bounds the pushes that a failing set knows at least; it may know twice as
// many.
const maxFailing = 10_000

// failing are the pushes whose failure the log has, so that each next failure of the same
// push is for debugging only. Those that failed longest ago are forgotten first, and then
// have another line. The zero value is ready.
type failing struct {
	mu        sync.Mutex
	seed      maphash.Seed // made with new
	new, last map[uint64]bool
}

// first says that a push fails for the first time, as far as is known.
func (f *failing) first(e *Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.new == nil:
		f.seed, f.new = maphash.MakeSeed(), make(map[uint64]bool)
	case len(f.new) >= maxFailing:
		f.new, f.last = make(map[uint64]bool), f.new
	}
	key := f.key(e)
	known := f.new[key] || f.last[key]
	f.new[key] = true
	return !known
}

// end forgets a push that has ended: kicked, it begins again.
func (f *failing) end(e *Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.new)+len(f.last) > 0 {
		key := f.key(e)
		delete(f.new, key)
		delete(f.last, key)
	}
}

// key is the push's: that of its job and its device token or channel.
func (f *failing) key(e *Event) uint64 {
	n := &e.p.n
	return maphash.Comparable(f.seed, [4]string{e.App, e.Job, n.Token, n.ChannelID})
}
