package queue

import (
	"context"
	"time"
)

// Mover is what an engine offers whose jobs can be moved to another engine, or
// from one. Package move does it. Queues that offer it implement it beside
// Queue: find it with a type assertion.
type Mover interface {
	Admin

	// Tubes lists the tubes that have jobs, in order of their names. Names that
	// CheckTube refuses may be among them. Errors: ErrUnavailable, ctx.Err().
	Tubes(ctx context.Context) ([]string, error)

	// Aside calls f for each job of tube that no consumer gets at present: those
	// that are buried, and those that are delayed by more than Soon. (Those
	// that are due sooner are left to become ready.) When f returns nil the job
	// is removed. When f returns an error that wraps ErrRejected, the job stays
	// as it is and the walk goes on; any other error ends the walk and is
	// returned. f may be called from several goroutines at once.
	//
	// It is for tubes that nobody works on: of a job that becomes ready or is
	// kicked while f has it, there may be two afterwards. When the process dies
	// during f, the job is still there, as it was. When ctx ends, calls of f
	// come to their end first; it is not f's context. Other errors as
	// TubeStats.
	Aside(ctx context.Context, tube string, f func(StoredJob) error) error

	// Restore puts a job that comes from elsewhere, in the state that it had
	// there. What the engine has no place for is left out: see its
	// documentation. Errors as Put.
	Restore(ctx context.Context, tube string, j StoredJob) (id string, err error)
}

// Soon is a delay that is not worth moving: a job that is due sooner might
// become ready in the middle of it.
const Soon = 5 * time.Second

// StoredJob is a job with all that an engine knows about it.
type StoredJob struct {
	ID       string
	Body     []byte
	Priority uint32        // as in PutOptions
	Age      time.Duration // since it was put, to the engine's precision
	Delay    time.Duration // from now until it may be served; never less than what is left
	Buried   bool
}
