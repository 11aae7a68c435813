package beanstalk

import "sync"

// hands are goroutines for calls that wait for the server. One that is done
// takes the next call: a new goroutine for each would spend a tenth of all work
// on its stack, which a command outgrows. dismiss ends those without work, so
// that an idle server has none; how many there are is bounded by whoever calls
// run and waits.
//
// Who calls a method excludes other calls of methods.
type hands struct {
	wg   sync.WaitGroup
	free chan func() // taken from by hands without work; unbuffered
}

func newHands() hands { return hands{free: make(chan func())} }

// run has f run by a hand.
func (h *hands) run(f func()) {
	select {
	case h.free <- f:
	default:
		h.wg.Go(func() {
			for f != nil {
				f()
				f = <-h.free
			}
		})
	}
}

// dismiss ends the hands without work.
func (h *hands) dismiss() {
	for {
		select {
		case h.free <- nil:
		default:
			return
		}
	}
}

// close ends all hands once their work is done. There must be no more.
func (h *hands) close() { close(h.free) }

// wait waits for that.
func (h *hands) wait() { h.wg.Wait() }
