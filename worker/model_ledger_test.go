package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"propeller/queue"
)

// The ledger knows what became of each push: one token of one job as its producer put it. A
// job's rests keep its ref, which identifies them.

type pushKey struct{ ref, token string }

type push struct {
	pushKey
	nature nature // of its token
	live   int    // jobs in the queue that have it, including buried ones

	tries     int       // pushes that were begun
	taken     int       // by APNs, since the job was last kicked
	delivered bool      // APNs has said so
	recorded  bool      // a record says how it ended
	lastBad   time.Time // when APNs last called its token wrong
}

// nature is how a healthy APNs answers a push to a token.
type nature int

const (
	good nature = iota
	unregistered
	badToken
	unacceptable
)

// readBody reads from a job what the ledger needs.
func readBody(body []byte) (ref string, tokens []string, err error) {
	var b struct {
		Token  string
		Tokens []string
		Ref    string
	}
	err = json.Unmarshal(body, &b)
	if b.Token != "" {
		b.Tokens = append(b.Tokens, b.Token)
	}
	return b.Ref, b.Tokens, err
}

// open notes a job that is put. m.mu is held.
func (m *model) open(j *job) {
	ref, tokens, err := readBody(j.body)
	j.ref, j.sound = ref, err == nil && !m.unsound[ref]
	if err != nil {
		return
	}
	for _, token := range tokens {
		p := m.pushes[pushKey{ref, token}]
		if p == nil {
			p = &push{pushKey: pushKey{ref, token}, nature: m.natures[token]}
			m.pushes[p.pushKey] = p
		}
		p.live++
		j.held = append(j.held, p)
	}
}

// close notes that a job has left the queue: its pushes must have ended, or be in another
// job. m.mu is held.
func (m *model) close(j *job) {
	if !j.sound {
		m.fail("lost", "job %d, which can never work, was deleted and not buried", j.id)
	}
	for _, p := range j.held {
		if p.live--; p.live == 0 && !p.delivered && !p.recorded {
			m.fail("lost", "job %d (ref %s) was deleted, and token …%s was neither delivered nor reported", j.id, j.ref, tail(p.token))
		}
	}
}

// setAside notes that a job was buried: each of its tokens must have a record before.
// m.mu is held.
func (m *model) setAside(j *job) {
	for _, p := range j.held {
		if j.sound && !p.recorded {
			m.fail("unreported", "job %d (ref %s) was buried without a record of token …%s", j.id, j.ref, tail(p.token))
		}
	}
}

// rewrite notes that a buried job has another body, which must have everything that the old
// one had. m.mu is held.
func (m *model) rewrite(j *job, body []byte) {
	ref, tokens, err := readBody(body)
	if j.sound && (err != nil || ref != j.ref) {
		m.fail("lost", "job %d (ref %s) was buried as something else: %s", j.id, j.ref, body)
	}
	for _, p := range j.held {
		if j.sound && !slices.Contains(tokens, p.token) {
			m.fail("lost", "job %d (ref %s) was buried without token …%s", j.id, j.ref, tail(p.token))
		}
	}
	j.body = body
}

// reopen notes that an operator wants a job's pushes again: from then on a push that APNs
// took before is no duplicate. m.mu is held.
func (m *model) reopen(j *job) {
	for _, p := range j.held {
		m.duplicates += max(0, p.taken-1)
		p.taken = 0
	}
}

// note is the part of a record that the ledger needs.
type note struct{ ref, token, class string }

// record takes a worker's record.
func (m *model) record(ctx context.Context, n note) error {
	m.count(rateRecord)
	if err := m.takeTime(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts[n.ref+n.token]++
	refused := m.queueKind == queueRefusesRecords || m.away()
	if refused {
		m.fault()
	}
	if !refused || m.chance("record "+n.ref+n.token, m.puts[n.ref+n.token], 8) {
		m.noteRecord(n)
	}
	if refused {
		return fmt.Errorf("model: record: %w", queue.ErrUnavailable)
	}
	return nil
}

func (m *model) noteRecord(n note) {
	p := m.pushes[pushKey{n.ref, n.token}]
	if p == nil {
		return // the record of a job that cannot be read
	}
	p.recorded = true
	switch {
	case n.class == "token" && !m.calledBad[n.token]:
		m.fail("wrong", "token …%s of ref %s is reported dead, and APNs never said so", tail(p.token), p.ref)
	case n.class == "token" && !m.right:
		m.fail("wrong", "token …%s of ref %s is reported dead, though no answer has shown that the environment is right", tail(p.token), p.ref)
	case n.class == "expired" && !m.expires[n.ref] && m.plan.ttl == 0 && m.plan.expiration == 0:
		m.fail("wrong", "ref %s is reported expired, and has neither ttl nor expiration", p.ref)
	}
}

// uncounted is how many pushes APNs took beyond one per token and job. Each of them must
// have been counted as a possible duplicate, because whoever causes it knows: from an outcome
// of class unknown, from a settle call that failed (also with ErrLost: the queue has given
// the job to somebody else, and a worker that pushed meanwhile learns that when it settles),
// from a put that failed, or from its own stop. Only pushes that an operator asks for are not
// counted: after a kick a push starts again.
func (m *model) uncounted() int {
	n := m.duplicates
	for _, p := range m.pushes {
		n += max(0, p.taken-1)
	}
	return n - m.possibleDuplicates()
}

// refOf returns the ref of the job that a push belongs to: the payload's title.
func refOf(payload []byte) string {
	_, after, _ := bytes.Cut(payload, []byte(`"title":"`))
	ref, _, _ := bytes.Cut(after, []byte(`"`))
	return string(ref)
}

func tail(token string) string { return token[max(0, len(token)-8):] }
