package jetstream

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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
	if q.embedded != nil {
		return nil // the one server knows what it has served
	}
	_, err := nc.Subscribe(electedSubject+"*", q.guarded(func(m *nats.Msg) {
		name := strings.TrimPrefix(m.Subject, electedSubject)
		var said leadership
		if json.Unmarshal(m.Data, &said) != nil {
			said = leadership{} // then it counts as a new one
		}
		for _, t := range q.allTubes() {
			if t.config.Durable == name {
				t.elected(said)
			}
		}
	}))
	return err
}

// reconnected is watchElections for those that nobody could tell us of.
func (q *client) reconnected() {
	if q.copies.Load() <= 1 { // the URL may say otherwise
		return
	}
	for _, t := range q.allTubes() {
		t.elected(leadership{})
	}
}

// leadership is what a server says of its election (nats-server: jetstream_events.go,
// JSConsumerLeaderElectedAdvisory).
type leadership struct {
	Leader string    `json:"leader"`
	At     time.Time `json:"timestamp"` // by the leader's clock
}

// ledBy notes the leader that answered for the tube's consumer.
func (t *tube) ledBy(info *jetstream.ConsumerInfo) {
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if was := t.leader.Leader; was != "" && was != info.Cluster.Leader {
		t.shareLocked()
	}
	t.leader = leadership{info.Cluster.Leader, info.TimeStamp}
}

// elected notes that the tube's consumer has a new leader. The election of the one that
// has answered since, as when the consumer was made, is none: its word only comes late.
func (t *tube) elected(e leadership) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Leader != "" && e.Leader == t.leader.Leader && e.At.Before(t.leader.At) {
		return
	}
	t.shareLocked()
}

// shareLocked marks the jobs held here as perhaps served to others.
func (t *tube) shareLocked() {
	for _, j := range t.jobs {
		j.shared = true
	}
}
