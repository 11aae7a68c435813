package worker

import (
	"sync/atomic"
	"time"
)

// Hold is the operator's pause of one app, shared by its workers. While the app is held
// they take no jobs, not even to probe, and release the jobs at hand; pushes under way
// finish. A Hold may outlive the app's configuration. The zero value holds nothing.
type Hold struct {
	state atomic.Pointer[HoldState] // nil: not held
	bells bells
}

// HoldState is a hold at one moment.
type HoldState struct {
	Held   bool
	Reason string    // "" while it is not held
	Since  time.Time // zero while it is not held
}

// Pause holds the app. If it is held already, nothing changes.
func (h *Hold) Pause(reason string) {
	if h.state.CompareAndSwap(nil, &HoldState{true, reason, time.Now()}) {
		h.bells.ring()
	}
}

// Resume lets the app go on.
func (h *Hold) Resume() {
	if h.state.Swap(nil) != nil {
		h.bells.ring()
	}
}

// State says whether the app is held, why, and since when.
func (h *Hold) State() HoldState {
	if h == nil {
		return HoldState{}
	}
	if s := h.state.Load(); s != nil {
		return *s
	}
	return HoldState{}
}

// held is State().Held. It costs one load.
func (h *Hold) held() bool { return h != nil && h.state.Load() != nil }
