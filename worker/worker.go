// Package worker does one tube's work: it receives jobs while the APNs
// connection has room for them, decodes each into a notification, sends it,
// and settles the job by how the push ended.
//
// The path of a push, by file: plan.go decides what to do → run.go receives → package job decodes →
// send.go sends (conn.go has the connection) → ended.go handles the answer → settle.go, by the
// table in it, settles the job. A job with several tokens is one task with many pushes;
// remainder.go puts its remaining tokens back into the queue. event.go reports the end of every
// push. app.go has what the workers of an app share.
//
// One goroutine owns all of a worker's state (run.go); all others report to its mailbox
// (mailbox.go). stop.go has how it ends.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"propeller/internal/flood"
)

// Worker is a suture service: one queue consumer and one APNs connection.
type Worker struct {
	app        *App
	index      int // 0…N-1 within the app
	log        *slog.Logger
	limitedLog *flood.Lines // to log; for what a queue or producer may cause without end
	sinks      []Sink
	cur        atomic.Pointer[run]

	received, finished atomic.Int64 // see Status
}

// NewWorker returns a worker of the app that does nothing until Serve.
func (a *App) NewWorker(index int) *Worker {
	w := &Worker{app: a, index: index, log: a.cfg.Log.With("app", a.cfg.App, "topic", a.cfg.Topic, "worker", index)}
	// After an outage each reserved job may have lost its reservation.
	w.limitedLog = flood.New(w.log, 2*a.cfg.InFlight)
	w.sinks = append([]Sink{logSink{w}, &a.Recent}, a.cfg.Sinks...)
	return w
}

// String names the worker in suture's events.
func (w *Worker) String() string { return fmt.Sprintf("app %s worker %d", w.app.cfg.App, w.index) }

// Replace stops using the connection to APNs, for the given reason. Open pushes finish;
// the next job dials a new connection.
func (w *Worker) Replace(reason string) {
	if r := w.cur.Load(); r != nil {
		r.box.post(func() {
			r.log.Debug("connection to apns is replaced", "reason", reason)
			r.retire()
		})
	}
}

// ErrRestarted is the cause of a context with which Serve is stopped for a restart: see
// context.WithCancelCause.
var ErrRestarted = errors.New("restarted")

// Serve works until ctx ends, then finishes what is in flight, within
// Live.Drain, and returns nil. If ctx ends for a restart, Serve takes a second or two and
// releases all that APNs has not answered by then. An error is something nobody foresaw;
// suture starts Serve again.
func (w *Worker) Serve(ctx context.Context) error {
	consumer, err := w.app.cfg.Queue.Consume(w.app.cfg.Tube)
	if err != nil {
		return fmt.Errorf("worker: tube %q: %w", w.app.cfg.Tube, err)
	}
	r := newRun(w, consumer)
	w.cur.Store(r)
	defer w.cur.Store(nil)
	return r.serve(ctx)
}
