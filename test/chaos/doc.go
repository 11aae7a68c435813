// Command chaos checks that propeller loses nothing. It runs the built daemon, a real queue
// (beanstalkd with its log on disk, three NATS servers, or the one inside the daemon) and
// the APNs stand-in as separate processes. Seeded random hands kill, freeze and confuse
// them while producers put numbered jobs. Once the faults are over it waits until the queue
// is empty, and an auditor accounts for each push. docs/reliability.md says what is done
// and what must hold.
//
//	go run ./test/chaos
//	CHAOS_TIME=30m CHAOS_SEED=7 go run ./test/chaos
//	CHAOS_ENGINE=nats go run ./test/chaos
//	CHAOS_ENGINE=all CHAOS_SEEDS=8 go run ./test/chaos
//	CHAOS_APPS=300 CHAOS_TIME=10m go run ./test/chaos    # most apps sleep, and wake
//
// The account is by push: one device token of one job. The push's number is the beginning
// of its token, which all witnesses show. The auditor trusts the witnesses that survive
// every kill: the stand-in's record, which has each request before it is answered; the
// feedback records, which a reader of the tubes and the receiver of a webhook keep before
// they acknowledge them; the jobs buried in the queue at the end, and what `propeller jobs
// list` says about them; and the daemon's log.
//
//	main.go series.go run.go           flags; several runs and their table; one run
//	calm.go                            after the faults: what stands still
//	site.go settings.go                the folder: ports, certificates, the binary; the configuration
//	process.go daemon.go               a process; the daemon
//	engine.go                          the interface of a queue
//	beanstalkd.go beanstalk.go         beanstalkd, and a client of it
//	embedded.go disk.go nats.go        the queue inside the daemon, its disk, and a client of it
//	cluster.go natsserver.go wire.go   NATS servers, and the routes between them
//	clusterhand.go removal.go traces.go  their faults, and what a removed stream takes along
//	apns.go sim.go answers.go record.go   the APNs side, and what runs inside its process
//	jobs.go producer.go sleepers.go    the pushes and jobs; who puts them
//	reader.go receiver.go records.go sequence.go  who takes the feedback records, and in what order
//	hand.go hands.go                   the faults
//	witness.go log.go list.go          what the witnesses say
//	audit.go audit_jobs.go report.go story.go  the account
//	evidence.go                        the evidence for it, kept for -judge
package main
