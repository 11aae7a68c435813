package queue

// Loser is a Queue that notices when its engine has lost accepted jobs. Only some
// engines implement it.
type Loser interface {
	// LostJobs is about how many jobs are known to be lost, counted since the queue was
	// opened and including those missing then.
	LostJobs() int64
}
