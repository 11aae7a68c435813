// Command chaos is the proof that propeller loses nothing: it runs the built
// daemon, a real beanstalkd with its log on disk and the APNs stand-in as
// processes of their own, lets a seeded random hand kill, freeze and confuse
// them while producers put numbered jobs, and has an auditor account for each
// job at the end.
//
//	go run ./cmd/propeller/chaos
//	CHAOS_TIME=30m CHAOS_SEED=7 go run ./cmd/propeller/chaos
//
// The auditor trusts two witnesses that survive every kill: the stand-in's
// record, in which each request stands before it is answered, and the daemon's
// log. A job's number is the beginning of its device token, which both show.
//
//	main.go run.go                    flags, the course of a run
//	site.go settings.go               the folder: ports, certificates, the binary; the configuration
//	process.go                        starting, ending and freezing a process
//	daemon.go beanstalkd.go apns.go   the three processes
//	sim.go answers.go record.go       what runs inside the APNs process
//	producer.go                       the jobs
//	hand.go hands.go                  the faults
//	witness.go audit.go report.go     the account
package main
