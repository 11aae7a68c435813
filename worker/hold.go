package worker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Hold is the operator's brake on one app, shared by its workers: while it is
// held they take no jobs, not even one to probe, and those waiting here go back.
// Pushes under way end as they do. It may outlive the app when that changes. The
// zero value holds nothing.
type Hold struct {
	state atomic.Pointer[HoldState] // written under mu; nil: not held
	mu    sync.Mutex
	runs  map[*run]struct{} // the app's workers at work
}

// HoldState is a hold at one moment.
type HoldState struct {
	Held   bool
	Reason string    // "" while it is not held
	Since  time.Time // zero while it is not held
}

// Pause holds the app. If it is held already, nothing changes.
func (h *Hold) Pause(reason string) {
	h.set(&HoldState{true, reason, time.Now()})
}

// Resume lets the app go on.
func (h *Hold) Resume() { h.set(nil) }

func (h *Hold) set(to *HoldState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if (h.state.Load() == nil) == (to == nil) {
		return
	}
	h.state.Store(to)
	for r := range h.runs {
		r.interrupt()
	}
}

// State says whether the app is held, why, and since when.
func (h *Hold) State() HoldState {
	if !h.held() {
		return HoldState{}
	}
	if s := h.state.Load(); s != nil {
		return *s
	}
	return HoldState{}
}

func (h *Hold) held() bool { return h != nil && h.state.Load() != nil }

// join makes r hear of changes, until leave.
func (h *Hold) join(r *run) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs == nil {
		h.runs = make(map[*run]struct{})
	}
	h.runs[r] = struct{}{}
}

func (h *Hold) leave(r *run) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.runs, r)
}
