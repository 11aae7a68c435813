package worker

// maxWeight bounds the bodies of the jobs that a worker has reserved, in bytes; the last job may
// be beyond it. Decoded, and with a push for each token, a job takes many times its size.
// The jobs of slow settlers, see linger, have as much again.
const maxWeight = 16 << 20

// weight is how much the jobs weigh that a run has reserved.
type weight struct {
	reserved  int     // without those that linger
	lingering int     // those
	perJob    float64 // average; 0 = unknown
}

func (t *task) weight() int { return len(t.body) }

// full reports whether the run takes no jobs until one of those reserved is settled. Every
// reserved job is being sent or settled, so that comes about by itself.
func (w *weight) full() bool { return w.reserved >= maxWeight }

// take adds a job, unless there are too many already.
func (w *weight) take(t *task) (ok bool) {
	w.perJob = moved(w.perJob, float64(t.weight()))
	ok = !w.full()
	w.reserved += t.weight()
	return ok
}

// leave takes out a job that has been settled.
func (w *weight) leave(t *task) {
	if t.lingers {
		w.lingering -= t.weight()
	} else {
		w.reserved -= t.weight()
	}
}

// linger makes a job one that lingers, if there is room.
func (w *weight) linger(t *task) (ok bool) {
	if w.lingering > 0 && w.lingering+t.weight() > maxWeight {
		return false
	}
	w.reserved -= t.weight()
	w.lingering += t.weight()
	return true
}

// stay is for a job that has lingered and goes on.
func (w *weight) stay(t *task) {
	w.lingering -= t.weight()
	w.reserved += t.weight()
}

// jobs is how many of n jobs to ask for.
func (w *weight) jobs(n int) int {
	if w.perJob < 1 {
		return n
	}
	return max(1, min(n, int(float64(maxWeight-w.reserved)/w.perJob)))
}

// moved is a moving average that rises fast and falls slowly, since too many large jobs
// are the greater harm.
func moved(average, n float64) float64 {
	switch {
	case average == 0:
		return n
	case n > average:
		return average + (n-average)/2
	}
	return average + (n-average)/16
}
