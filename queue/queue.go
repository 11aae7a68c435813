// Package queue is the small interface between propeller's workers and a
// durable job queue. The adapters are packages beanstalk and jetstream. Both keep the jobs
// that a worker holds in package lease, and both pass the suite in package queuetest.
//
// A job travels: Put → ready → Receive (reserved by one consumer) → exactly
// one of Done, Retry, Bury. A job that is reserved and never settled returns
// to ready when its consumer's process or connection dies: delivery is
// at-least-once.
//
// Operators count, list, kick and delete jobs through Admin. The reason why a job was buried
// is in its body, which Bury may replace.
package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Queue is a connection to a queue engine. It is safe for concurrent use.
type Queue interface {
	// Put stores body in tube and returns the engine's id of the new job.
	// When it returns nil the engine has accepted the job. Errors: ErrRejected
	// (this tube or body can never work), ErrUnavailable (try again later), its
	// kind ErrFull, ctx.Err(). An error that also wraps ErrUncertain leaves
	// open whether the job is stored; after any other it is not.
	Put(ctx context.Context, tube string, body []byte, o PutOptions) (id string, err error)

	// Consume starts a consumer of one tube. It does not wait for the engine:
	// the consumer goes on dialling an unreachable engine. The error
	// is ErrRejected for a tube name that can never work.
	Consume(tube string) (Consumer, error)

	// Close ends puts and frees what the Queue holds. The owners of its consumers
	// close them first.
	Close() error
}

// Admin is what an operator may ask of an engine. Queues that offer it
// implement it beside Queue: find it with a type assertion.
type Admin interface {
	// TubeStats counts the jobs of tube. A tube that does not exist has none.
	// Errors: ErrRejected, ErrUnavailable, ctx.Err(). When only some of an
	// engine's servers answer, the counts are of those and the error is ErrPartial.
	TubeStats(ctx context.Context, tube string) (TubeStats, error)

	// Peek looks at one buried job; the result has no Delete. id is from Put or Job.ID. Errors:
	// ErrNotFound when the engine says that the job does not exist, is not
	// buried, or is in another tube, and its kind ErrBusy when another client may
	// be listing it; ErrRejected when id cannot be a job of this queue;
	// ErrUnavailable; ctx.Err().
	Peek(ctx context.Context, tube, id string) (StoredJob, error)
	// Kick gives one buried job back to be served at once. It may have another id
	// afterwards. Errors as Peek.
	Kick(ctx context.Context, tube, id string) error
	// Delete removes one buried job for good. Errors as Peek.
	Delete(ctx context.Context, tube, id string) error

	// Tubes lists the tubes that have jobs, in order of their names. Names that
	// CheckTube refuses may be among them. Errors: ErrUnavailable, ctx.Err().
	Tubes(ctx context.Context) ([]string, error)
	// List calls f for all jobs of tube in the given state, some at a time, until f
	// returns an error, which it returns. Jobs that f does not delete keep their state.
	// beanstalkd shows one job at a time, so List moves each out of the way of the next.
	//
	// Delayed jobs are those that no consumer gets for now and that are not
	// buried. Those due within Soon may be left out.
	//
	// List may be slow and disturb what it lists (see the engine). Other errors as
	// TubeStats; with several servers f gets the jobs of all that answer.
	List(ctx context.Context, tube string, state State, f func([]StoredJob) error) error
}

// LossReporter is a Queue that notices when its engine has lost accepted jobs. Only some
// engines implement it.
type LossReporter interface {
	// LostJobs is about how many jobs are known to be lost, counted since the queue was
	// opened and including those missing then.
	LostJobs() int64
}

// State is the state of jobs that List lists.
type State string

// The states that List knows.
const (
	Delayed State = "delayed"
	Buried  State = "buried"
)

// Soon is a delay so short that a job may become ready while it is listed.
const Soon = 5 * time.Second

// StoredJob is a job that nobody has reserved.
type StoredJob struct {
	ID       string
	Body     []byte
	Priority uint32        // as in PutOptions
	Age      time.Duration // since it was put, to the engine's precision
	Delay    time.Duration // from now until it may be served; never less than what is left
	// Fault, an ErrRejected, says why Body is not what was put, or cannot be served.
	Fault error
	// Delete removes the job for good. If its state has changed since, that is no
	// error. f may call it, and for several jobs at once.
	Delete func() error
}

// TubeStats are numbers of jobs by state.
type TubeStats struct {
	Ready    int // waiting for a consumer
	Delayed  int // waiting for their time
	Reserved int // held by consumers, of any process
	Buried   int // set aside for an operator
	// Paused is how many of the ready ones no consumer gets for now, because
	// an operator has paused the tube. 0 where the engine knows no pause.
	Paused int
	// PausedUntil is when that pause ends; zero without a pause. With several servers
	// it is the latest.
	PausedUntil time.Time
}

// PutOptions are the optional properties of a new job.
type PutOptions struct {
	Delay    time.Duration // not before this; engines may round up to whole seconds
	Priority uint32        // 0 is served first; engines without priorities ignore it
	// Settling marks a job that belongs to settling another one. The engine takes it even
	// when it is full, if it reserves room for such jobs (see ErrFull).
	Settling bool
	// Buried puts the job among the buried ones. Delay does not count then.
	Buried bool
	// Age is how long ago the job was put into the queue that it comes from. Engines that
	// cannot keep it ignore it.
	Age time.Duration
}

// Consumer receives jobs of one tube. Receive is called by one goroutine at a
// time; everything else may be called at any time from any goroutine.
type Consumer interface {
	// Receive blocks until at least one job is at hand and returns between 1
	// and n of them (n ≥ 1). n is how many jobs the caller can take now: the
	// consumer may already be reserving the rest of the n in the background,
	// never more (an adapter over several servers may hold one job per server
	// beyond that). It returns ctx.Err() promptly when ctx ends; jobs reserved
	// meanwhile are kept for the next call. An unreachable engine is not an
	// error: Receive waits until it is back.
	Receive(ctx context.Context, n int) ([]Job, error)

	// Pause says that no job is wanted until the next Receive. Jobs reserved
	// and not yet received go back to the tube at once, and so does one that
	// arrives late. It does not wait.
	Pause()

	// Err says why no job can be received at present (engine unreachable, not
	// answering), wrapped around ErrUnavailable; nil when all is well.
	Err() error

	// Close stops receiving and gives back every job that is unsettled. Settle
	// calls in progress are finished first, bounded by ctx. The consumer is
	// dead afterwards.
	Close(ctx context.Context) error
}

// Job is one reserved job. While it is held, the adapter keeps the reservation
// alive. Exactly one of Done, Retry and Bury is called, once; after a refused Bury
// another one may be. They may be called from any goroutine.
//
// Done and Bury return ErrLost when the reservation had gone: somebody else
// may have run the job. While the engine is unreachable they wait for it, up to
// ctx's end, so that a finished job is not run again after an outage; they do
// not return ErrUnavailable for that.
type Job interface {
	// ID is the engine's id of the job, stable across its tries. After Bury has
	// returned nil it is the buried job's id, which may differ.
	ID() string
	// Body is the job as it was put. It must not be changed.
	Body() []byte
	// Stat asks the engine about the job. It may cost a round trip: use it on
	// paths that are rare.
	Stat(ctx context.Context) (Stat, error)
	// Done removes the job for good.
	Done(ctx context.Context) error
	// Retry gives the job back, to be served again after at least the given
	// time; 0 means at once. A job whose reservation was lost is already back:
	// that is no error.
	Retry(ctx context.Context, after time.Duration) error
	// Bury sets the job aside until an operator kicks or deletes it, and replaces its
	// body with the given one; nil keeps the body. With another body the job may get
	// another id, and its age may start again.
	//
	// ErrRejected: the engine can never take a body of that size. ErrUnavailable: the
	// engine refuses for now. After either nothing has changed: the job is still held and
	// has to be settled.
	Bury(ctx context.Context, body []byte) error
	// Touch renews the reservation. Adapters do this without being asked.
	Touch(ctx context.Context) error
}

// FaultReporter is a Job that can be known to be faulty whatever its body says. Only some
// engines implement it.
type FaultReporter interface {
	// Fault says why the job can never work; nil if that depends only on its body.
	Fault() error
}

// RepeatReporter is a Job that may have been finished before, because its engine lost track
// of that. Only some engines implement it.
type RepeatReporter interface {
	// Repeats reports whether the job may have been finished before.
	Repeats() bool
}

// Stat is what an engine knows of a job.
type Stat struct {
	// Attempt is how often it has been reserved, this time included; 1 = first.
	// Reservations that ended with a burial may be left out: see Kicked.
	Attempt int
	Age     time.Duration // since it was put, to the engine's precision
	Kicked  bool          // it was buried, and an operator gave it back (Admin.Kick)
	// Priority is as in PutOptions; 0 where the engine has none.
	Priority uint32
}

var (
	// ErrLost: the reservation is gone, somebody else may run the job.
	ErrLost = errors.New("reservation lost")
	// ErrUnavailable: the engine cannot be reached or takes nothing at present.
	ErrUnavailable = errors.New("queue unavailable")
	// ErrFull: the engine has no room for new jobs. It still serves the jobs it has, and
	// each that is finished makes room.
	ErrFull = fmt.Errorf("the queue is full: %w", ErrUnavailable)
	// ErrPartial, an ErrUnavailable: only some of an engine's servers have answered, and
	// what is returned beside it is theirs.
	ErrPartial = fmt.Errorf("only some servers answer: %w", ErrUnavailable)
	// ErrUncertain: a put was sent, and its outcome is unknown. The job may have been
	// stored, or may still be.
	ErrUncertain = errors.New("the job may have been stored")
	// ErrNotFound: an operator named a job that is not there (any more).
	ErrNotFound = errors.New("no such buried job")
	// ErrBusy: another client holds the job that an operator named. It is an
	// ErrNotFound that may pass in a moment: engines may reserve a buried
	// job to list the next.
	ErrBusy = fmt.Errorf("held by somebody at present: %w", ErrNotFound)
	// ErrCut is what List's f returns to end a list that is long enough.
	ErrCut = errors.New("the list is cut")
	// ErrRejected: this body or tube name can never work.
	ErrRejected = errors.New("rejected")
)

// MaxTubeLen is the longest tube name in bytes: beanstalkd allows 200 and
// go-beanstalk one less.
const MaxTubeLen = 199

// CheckTube returns an error wrapping ErrRejected unless name is a tube name
// that every engine accepts.
func CheckTube(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("queue: tube name is empty: %w", ErrRejected)
	case len(name) > MaxTubeLen:
		return fmt.Errorf("queue: tube %.40q…: %d bytes, at most %d: %w", name, len(name), MaxTubeLen, ErrRejected)
	case !everywhere(name):
		return fmt.Errorf("queue: tube %q: only letters, digits, '_', '-' and single inner dots, not starting with '-': %w", name, ErrRejected)
	}
	return nil
}

// everywhere reports whether a tube name is valid on every engine: no blank, no
// leading '-', no NATS wildcard or empty subject token. Each put asks.
func everywhere(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case c == '-' && i > 0:
		case c == '.' && i > 0 && i < len(name)-1 && name[i-1] != '.':
		default:
			return false
		}
	}
	return true
}
