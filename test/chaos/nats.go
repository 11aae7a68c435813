package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// What docs/queues.md says is in a NATS account. It is written down again here
// on purpose: the daemon's adapter is part of what is on trial.
const (
	jobsStream    = "PROPELLER_JOBS"
	buriedStream  = "PROPELLER_BURIED"
	jobSubject    = "propeller.job."
	schedSubject  = "propeller.sched."
	buriedSubject = "propeller.buried."
)

// natsClient is a client of JetStream, on nats.go alone.
type natsClient struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	end   func()                   // of a server that is this client's; or nil
	taken map[string]jetstream.Msg // by id
}

func newNATS(nc *nats.Conn, end func()) (*natsClient, error) {
	c := &natsClient{nc: nc, end: end, taken: make(map[string]jetstream.Msg)}
	var err error
	if c.js, err = jetstream.New(nc); err != nil {
		c.close()
	}
	return c, err
}

func (c *natsClient) close() {
	c.nc.Close()
	if c.end != nil {
		c.end()
	}
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func (c *natsClient) put(tube string, body []byte, delay time.Duration) (string, error) {
	ctx, cancel := within(askTimeout)
	defer cancel()
	m := &nats.Msg{Subject: jobSubject + tube, Data: body}
	id := ""
	if delay > 0 {
		id = "d" + nuid.Next()
		now := time.Now()
		m.Subject = schedSubject + tube + "." + id
		m.Header = nats.Header{
			"Propeller-Id": {id}, "Propeller-Put": {strconv.FormatInt(now.UnixNano(), 10)},
			"Nats-Schedule": {"@at " + now.Add(delay).UTC().Format(time.RFC3339Nano)}, "Nats-Schedule-Target": {jobSubject + tube},
		}
	}
	ack, err := c.js.PublishMsg(ctx, m)
	if err != nil {
		return "", err
	}
	if id == "" {
		id = strconv.FormatUint(ack.Sequence, 10)
	}
	return id, nil
}

// takeEvery is the pause between two rounds over empty tubes.
const takeEvery = 50 * time.Millisecond

// take asks one tube after the other.
func (c *natsClient) take(tubes []string, wait time.Duration) (string, []byte, error) {
	for end := time.Now().Add(wait); ; time.Sleep(takeEvery) {
		for _, tube := range tubes {
			id, body, err := c.takeOne(tube)
			if !errors.Is(err, errEmpty) {
				return id, body, err
			}
		}
		if time.Now().After(end) {
			return "", nil, errEmpty
		}
	}
}

// takeOne takes a job of a tube if there is one. A consumer that is missing is
// made as the daemon would: a tube can have one only.
func (c *natsClient) takeOne(tube string) (string, []byte, error) {
	ctx, cancel := within(askTimeout)
	defer cancel()
	consumer, err := c.js.CreateOrUpdateConsumer(ctx, jobsStream, jetstream.ConsumerConfig{
		Durable: consumerName(tube), FilterSubject: jobSubject + tube, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: 30 * time.Second, MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 2048,
	})
	if err != nil {
		return "", nil, err
	}
	batch, err := consumer.FetchNoWait(1)
	if err != nil {
		return "", nil, err
	}
	if m, ok := <-batch.Messages(); ok {
		meta, err := m.Metadata()
		if err != nil {
			return "", nil, err
		}
		id := strconv.FormatUint(meta.Sequence.Stream, 10)
		c.taken[id] = m
		return id, m.Data(), nil
	}
	if err := batch.Error(); err != nil {
		return "", nil, err
	}
	return "", nil, errEmpty
}

func (c *natsClient) remove(id string) error {
	m := c.taken[id]
	delete(c.taken, id)
	ctx, cancel := within(askTimeout)
	defer cancel()
	return m.DoubleAck(ctx)
}

// waiting counts what is in the streams: the server knows only by consumer which
// of the jobs are held, and that is no matter here.
func (c *natsClient) waiting(tubes []string) (all []remainder, err error) {
	ready, err := c.subjects(jobsStream, jobSubject+">")
	if err != nil {
		return nil, err
	}
	scheduled, err := c.subjects(jobsStream, schedSubject+">")
	if err != nil {
		return nil, err
	}
	delayed := byTube(schedSubject, scheduled)
	for _, tube := range tubes {
		if t := (remainder{tube: tube, ready: int(ready[jobSubject+tube]), delayed: delayed[tube]}); !t.empty() {
			all = append(all, t)
		}
	}
	return all, nil
}

func (c *natsClient) haveBuried(tubes []string) (map[string]bool, error) {
	has := make(map[string]bool)
	subjects, err := c.subjects(buriedStream, buriedSubject+">")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return has, nil // it was removed, and not created again
	}
	of := byTube(buriedSubject, subjects)
	for _, tube := range tubes {
		has[tube] = of[tube] > 0
	}
	return has, err
}

// byTube adds up messages whose subjects have a job's id after the tube.
func byTube(prefix string, subjects map[string]uint64) map[string]int {
	of := make(map[string]int)
	for subject, n := range subjects {
		if end := strings.LastIndexByte(subject, '.'); end > len(prefix) {
			of[subject[len(prefix):end]] += int(n)
		}
	}
	return of
}

// subjects counts the messages of a stream by subject, of those that match.
func (c *natsClient) subjects(stream, pattern string) (map[string]uint64, error) {
	ctx, cancel := within(askTimeout)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(pattern))
	if err != nil {
		return nil, err
	}
	return info.State.Subjects, nil
}

func isNoMessage(err error) bool { return errors.Is(err, jetstream.ErrMsgNotFound) }

func (c *natsClient) takeBuried(tube string, limit int) (map[string]string, error) {
	return c.buried(tube, buriedSubject+tube+".*", limit)
}

func (c *natsClient) takeRest(tube string, limit int) (map[string]string, error) {
	out, err := c.takeOut(jobsStream, jobSubject+tube, limit)
	if err == nil && len(out) == 0 {
		out, err = c.takeOut(jobsStream, schedSubject+tube+".*", limit)
	}
	return out, err
}

// buried takes jobs out of the stream of buried ones.
func (c *natsClient) buried(tube, pattern string, limit int) (map[string]string, error) {
	some, err := c.takeOut(buriedStream, pattern, limit)
	out := make(map[string]string, len(some))
	for subject, body := range some {
		out[strings.TrimPrefix(subject, buriedSubject+tube+".")] = body
	}
	return out, err
}

// takeOut takes messages out of a stream, named by subject for buried jobs and by number
// for others.
func (c *natsClient) takeOut(stream, pattern string, limit int) (map[string]string, error) {
	ctx, cancel := within(askTimeout)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil // it was removed, and not created again
	}
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for seq := uint64(1); len(out) < limit; seq++ {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(pattern))
		if isNoMessage(err) {
			break
		}
		if err == nil {
			err = s.DeleteMsg(ctx, m.Sequence)
		}
		if err != nil {
			return nil, err
		}
		seq = m.Sequence
		name := m.Subject
		if stream == jobsStream {
			name = strconv.FormatUint(seq, 10)
		}
		out[name] = string(m.Data)
	}
	return out, nil
}
