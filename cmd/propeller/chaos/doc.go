// Command chaos is the proof that propeller loses nothing: it runs the built
// daemon, a real beanstalkd with its log on disk and the APNs stand-in as
// processes of their own, lets a seeded random hand kill, freeze and confuse
// them while producers put numbered jobs, and has an auditor account for each
// push at the end.
//
//	go run ./cmd/propeller/chaos
//	CHAOS_TIME=30m CHAOS_SEED=7 go run ./cmd/propeller/chaos
//	CHAOS_QUEUE=embedded go run ./cmd/propeller/chaos
//
// The unit of the account is the push: one device token of one job. Its number
// is the beginning of its token, which all witnesses show. The auditor trusts
// those that survive every kill: the stand-in's record, in which each request
// stands before it is answered; the feedback records, kept by a reader of the
// tubes and by the receiver of a webhook before they are acknowledged; what is
// buried in the queue at the end, and what `propeller jobs list` says of it;
// and the daemon's log.
//
//	main.go run.go                     flags, the course of a run
//	site.go settings.go                the folder: ports, certificates, the binary; the configuration
//	process.go daemon.go journal.go    a process; the daemon; what befalls its journal
//	engine.go                          what is asked of a queue
//	beanstalkd.go beanstalk.go         beanstalkd, and a client of it
//	embedded.go nats.go                the queue inside the daemon, and a client of it
//	apns.go sim.go answers.go record.go   the APNs side, and what runs inside its process
//	jobs.go producer.go                the pushes and jobs; who puts them
//	reader.go receiver.go records.go sequence.go  who takes the feedback records, and in what order
//	hand.go hands.go                   the faults
//	witness.go log.go list.go          what the witnesses say
//	audit.go audit_jobs.go report.go story.go  the account
package main
