package queue

// Loser is a Queue that notices when its engine has lost jobs that it had
// accepted. Queues that offer it implement it beside Queue.
type Loser interface {
	// LostJobs is about how many jobs are known to have been lost since the queue
	// was opened, those that were missing then included.
	LostJobs() int64
}
