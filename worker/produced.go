package worker

// ParseProduced is ParseJob for a job that a producer is about to put: the key
// again is the daemon's own. Who could write it could have a job buried under
// another's name, or its time begin in the past.
func ParseProduced(body []byte, topic string) (Job, error) {
	j, err := ParseJob(body, topic, "")
	if err == nil && j.origin != nil {
		err = badOrigin()
	}
	return j, err
}
