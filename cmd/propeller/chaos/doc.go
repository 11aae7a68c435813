// Command chaos is the proof that propeller loses nothing: it runs the built
// daemon, a real queue (beanstalkd with its log on disk, three NATS servers, or
// the one inside the daemon) and the APNs stand-in as processes of their own, lets
// seeded random hands kill, freeze and confuse them while producers put numbered
// jobs, waits for the queue to run empty once the faults are over, and has an
// auditor account for each push at the end. docs/reliability.md tells what is
// done and what must hold.
//
//	go run ./cmd/propeller/chaos
//	CHAOS_TIME=30m CHAOS_SEED=7 go run ./cmd/propeller/chaos
//	CHAOS_ENGINE=nats go run ./cmd/propeller/chaos
//	CHAOS_ENGINE=all CHAOS_SEEDS=8 go run ./cmd/propeller/chaos
//
// The unit of the account is the push: one device token of one job. Its number
// is the beginning of its token, which all witnesses show. The auditor trusts
// those that survive every kill: the stand-in's record, in which each request
// stands before it is answered; the feedback records, kept by a reader of the
// tubes and by the receiver of a webhook before they are acknowledged; what is
// buried in the queue at the end, and what `propeller jobs list` says of it;
// and the daemon's log.
//
//	main.go series.go run.go           flags; several runs and their table; the course of one
//	calm.go                            after the faults: what stands still
//	site.go settings.go                the folder: ports, certificates, the binary; the configuration
//	process.go daemon.go               a process; the daemon
//	engine.go                          what is asked of a queue
//	beanstalkd.go beanstalk.go         beanstalkd, and a client of it
//	embedded.go disk.go nats.go        the queue inside the daemon, its disk, and a client of it
//	cluster.go natsserver.go wire.go   NATS servers, and the ways between them
//	clusterhand.go removal.go traces.go  the faults of those, and what goes with a stream
//	apns.go sim.go answers.go record.go   the APNs side, and what runs inside its process
//	jobs.go producer.go                the pushes and jobs; who puts them
//	reader.go receiver.go records.go sequence.go  who takes the feedback records, and in what order
//	hand.go hands.go                   the faults
//	witness.go log.go list.go          what the witnesses say
//	audit.go audit_jobs.go report.go story.go  the account
package main
