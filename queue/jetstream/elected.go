package jetstream

import (
	"strings"

	"github.com/nats-io/nats.go"
)

// A tube's consumer has a leader among the servers, which alone serves its jobs. What a
// leader has served is known to the next one only if it had the time to tell the others,
// and one that is cut off from them goes on serving for a while. So when there is a new
// leader, the jobs held here may be served to others as if for the first time, and neither
// the number of tries nor a late acknowledgement shows it. All that can be known is that
// there was an election: the jobs held then count as shared.

// electedSubject is where a server says that it leads a consumer (nats-server:
// jetstream_cluster.go, sendConsumerLeaderElectAdvisory).
const electedSubject = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED." + jobsStream + "."

// watchElections hears of elections on a new connection to a cluster.
func (q *client) watchElections(nc *nats.Conn) error {
	if q.opts.replicas() == 1 {
		return nil // the one server knows what it has served
	}
	_, err := nc.Subscribe(electedSubject+"*", q.guarded(func(m *nats.Msg) {
		name := strings.TrimPrefix(m.Subject, electedSubject)
		for _, t := range q.allTubes() {
			if t.config.Durable == name {
				t.elected()
			}
		}
	}))
	return err
}

// reconnected is watchElections for those that nobody could tell us of.
func (q *client) reconnected() {
	if q.opts.replicas() == 1 {
		return
	}
	for _, t := range q.allTubes() {
		t.elected()
	}
}

// elected notes that the tube's consumer has a new leader.
func (t *tube) elected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range t.jobs {
		j.shared = true
	}
}
