// Package beanstalk is the queue adapter for beanstalkd servers, on
// github.com/beanstalkd/go-beanstalk.
//
// A beanstalkd connection runs its commands strictly one after another, and a
// reservation belongs to the connection that made it (beanstalkd
// protocol.txt). Everything here follows from these two facts.
//
//	client                  the Queue
//	└─ server               one per address: table of held jobs, watchdog, state for the log
//	   ├─ putter × 8        connections for puts, each knowing one tube at a time
//	   ├─ link              connection for statistics and single buried jobs
//	   └─ connLoop          one per consumer: connects, reconnects, reserves
//	      └─ session        one live connection and the jobs reserved on it
//	         └─ writeBatcher    puts commands that come together into one write
//
// # Reserving
//
// A reserve that waits in the server holds up every command sent behind it on
// the same connection: a delete could wait for seconds. A connLoop therefore
// reserves without waiting while anything is in flight, polling an empty tube
// every 1 to 10 ms, and lets the server wait only when it holds nothing. One
// goroutine per connLoop (the leader) does this. Helpers join it while the tube
// gives jobs and end when it is empty.
//
// # Lost connections
//
// When a connection ends, the server gives all its jobs back at once, though
// their pushes are still under way. The table of a server (see package lease)
// knows every job that this process holds. If any consumer of the process
// reserves such a job a second time, the job is bound to its old holder instead of
// being delivered again. Jobs that were finished during the outage are
// deleted before the first reserve. If a job ended while its reservation was in
// doubt, its tombstone stays in the table: an answer to a reserve may still be on
// its way. After a restart of the server a job id is trusted only when the job is
// provably the same one (see session.recognise).
//
// # Sleeping tubes
//
// A watch tells which tubes without a consumer have jobs. It has a watchLoop per server, and while
// tubes sleep that has one connection (a wire), over which a sweeper asks and reserves. See
// sweeper for how.
//
// # What users should know
//
//   - Delays are whole seconds, rounded up.
//   - Jobs put by other programs should have a TTR of 10 s or more. The
//     protocol does not tell a job's TTR when it is reserved, so every held
//     job is touched every 4 s. A shorter TTR shows only as DEADLINE_SOON,
//     which is logged.
//   - Attempts are reservations minus burials, as the server counts them. A job
//     given back by Pause or by a lost connection counts one more, and a kicked
//     one starts at 1 again. What this process's watch reserved is left out; what
//     those of other processes reserved counts.
//   - Keep the n of Receive at about 1000, and at 2000 at most: the server's cost
//     per delete grows with the jobs reserved on one connection.
//   - Done returns nil whenever the server confirms that we removed the job, even
//     if the reservation had lapsed in between.
//   - A job that is buried with another body is a new job: it has a new id, and
//     its age and tries start again. If the connection breaks during the put,
//     there may be a second buried copy. A server before 1.12 buries the job
//     unchanged.
//   - Listing buried jobs (List) reserves and buries each of them: after a crash
//     in between, one job is served again. Peek, Kick and Delete of a known
//     id do not do this.
//   - Several servers add capacity, not high availability: a dead server's
//     jobs wait for it. Job ids then read host:port/123.
package beanstalk
