// Package jetstream is the queue adapter for NATS JetStream, on
// github.com/nats-io/nats.go: a server inside this process (embedded://), or a
// cluster (nats://, tls://). Both run the same code and differ only in the URL.
//
//	client              the Queue
//	├─ embedded         the server, if it is in this process, and the lock on its folder;
//	│                   embedded_restart.go starts it again when its disk was full, and
//	│                   notices when it hangs; full.go refuses jobs before the disk is full
//	├─ link             the one connection: made in the background, checked whenever it is new
//	├─ calls            requests that wait for an answer, all on one subscription
//	├─ renewLoop        renews reservations, repeats acknowledgements, ends calls
//	├─ watch            tells which sleeping tubes have jobs
//	└─ tube             one per tube: the jobs held by this process
//	   └─ consumer      one per worker: asks for jobs when Receive is called
//
// # Where jobs are
//
// All jobs that wait are in one work-queue stream, a subject per tube. A delayed
// job is a schedule there, on a subject of its own, which the server turns into
// a job when its time has come. Buried jobs are in a second stream, a subject
// per job. Each tube that is consumed has one durable consumer in the server, shared by all
// workers of all daemons: a work queue allows no second one. Other tubes have none; idle.go
// says when they go.
//
// # Asking for jobs
//
// A pull asks for as many jobs as are wanted now, 256 at most, waits until there
// is one, takes those at hand and ends. So nothing arrives unasked, nothing
// lies in a buffer while its reservation runs out, and an idle worker costs one
// request in half a minute (five, inside the process). A pull that falls silent,
// because the server that held it is gone, is given up and sent again.
//
// # Reservations
//
// The server gives a job to somebody else when it has heard nothing of its
// holder for AckWait; the renewal loop tells it in half of that. The server takes a
// late acknowledgement in silence, so ErrLost comes from our own clock, which
// counts from the last sign of life that the server has confirmed; one that was
// given too late does not bring a reservation back. A job that
// is served to this process again while it is held here is bound to its holder
// and not delivered twice: see package lease.
//
// # What users should know
//
//   - A put that failed after it was sent may have been stored.
//   - Attempts are servings, as the server counts them: a job given back by
//     Pause counts one more.
//   - Priorities are ignored; jobs are served in order, those given back first.
//   - Jobs of a process that died come back after AckWait, not at once.
//   - A job that another program finishes while an embedded queue's disk is full
//     comes again; see orphans.go.
//   - When the disk has been really full, a cluster's server may accept nothing
//     more until it is restarted, though there is room again: puts fail with
//     ErrUnavailable. Limit the server's storage below the disk's size.
//
// docs/queues.md is for users; each trap that a comment here names has a test in
// traps_test.go, lease_test.go or crash_test.go.
package jetstream
