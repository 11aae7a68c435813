// Package beanstalk is the queue adapter for beanstalkd servers, on
// github.com/beanstalkd/go-beanstalk.
//
// A beanstalkd connection runs its commands strictly one after another, and a
// reservation belongs to the connection that made it (beanstalkd
// protocol.txt). Everything here follows from these two facts.
//
//	client                        the Queue
//	└─ server                     one per address: registry of held jobs, watchdog, state for the log
//	   ├─ putter × 8              connections for puts, each knowing one tube at a time
//	   ├─ link                    connection for statistics and single buried jobs
//	   └─ source                  one per consumer: connects, reconnects, reserves
//	      └─ session              one live connection and the jobs reserved on it
//	         └─ writeBatcher          commands that come together go out in one write
//
// # Reserving
//
// A reserve that waits in the server holds up every command sent behind it on
// the same connection: a delete would be stuck for seconds. So a source
// reserves without waiting while anything is in flight, polling an empty tube
// every 1 to 10 ms, and lets the server wait only when it holds nothing. One
// goroutine per source (the leader) does this; others come while the tube
// gives jobs and go when it is empty.
//
// # Lost connections
//
// When a connection ends, the server gives all its jobs back at once, though
// their pushes are still under way. The registry of a server knows every job
// that somebody in this process holds, so that a job which any consumer of
// this process reserves a second time is bound to its old holder instead of
// being delivered again; and jobs that were finished during the outage are
// deleted before the first reserve. Of the latest that ended while their
// reservation was in doubt, the registry keeps a memo (see tombstones.go): an
// answer to a reserve may still be on its way. Job ids are only trusted after a restart
// of the server when the job is provably the same one (see session.recognise).
//
// # What users should know
//
//   - Delays are whole seconds, rounded up.
//   - Jobs put by other programs should have a TTR of 10 s or more. The
//     protocol does not tell a job's TTR when it is reserved, so every held
//     job is touched every 4 s; a shorter TTR is noticed only by
//     DEADLINE_SOON, which is logged.
//   - Attempts are reservations less burials, as the server counts them: a job
//     given back by Pause or by a lost connection counts one more, and a kicked
//     one begins anew.
//   - Keep the n of Receive at 1000 or so, 2000 at most: the server's cost per
//     delete grows with the jobs reserved on one connection.
//   - Done returns nil whenever the server confirms that the job is gone by our
//     doing, even if the reservation had lapsed in between.
//   - A job that is buried with another body is a new job: it has a new id, and
//     its age and tries start again. If the connection breaks while it is put,
//     there may be a second buried copy. A server before 1.12 buries the job
//     unchanged.
//   - Listing buried jobs (Buried) reserves and buries each of them: a crash
//     in between lets one job be served again. Peek, Kick and Delete of a known
//     id do not.
//   - Several servers are capacity, not high availability: a dead server's
//     jobs wait for it. Job ids then read host:port/123.
package beanstalk
