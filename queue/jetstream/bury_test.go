package jetstream

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// A stream that takes no more buried jobs, or a server that leaves burials
// unanswered, does not keep Bury waiting; the job stays in the hand until it can
// be buried.
func TestBuryRefused(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*jetstream.StreamConfig){
		"full":    func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew },
		"silence": func(c *jetstream.StreamConfig) { c.NoAck = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := openTest(t, Options{URL: embeddedIn(t.TempDir()), AckWait: 4 * time.Second, timeout: 2 * time.Second})
			buryOne(t, q, "tube", "first", "first buried")
			s := stream(t, q, buriedStream)
			was := s.CachedInfo().Config
			now := was
			limit(&now)
			if _, err := q.link.cn.js.UpdateStream(ctxOf(t), now); err != nil {
				t.Fatal(err)
			}
			c := consumeTest(t, q, "tube")
			id := mustPut(t, q, "tube", "x")
			j := mustReceive(t, c, 1)[0]
			for range 2 {
				began := time.Now()
				if err := j.Bury(ctxOf(t), []byte("x buried")); !errors.Is(err, queue.ErrUnavailable) {
					t.Fatalf("%v, want ErrUnavailable", err)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Fatalf("took %v", took)
				}
			}
			time.Sleep(5 * time.Second) // its reservation is kept alive
			if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st.Reserved != 1 {
				t.Fatalf("%+v, %v", st, err)
			}
			mustNone(t, c)
			if _, err := q.link.cn.js.UpdateStream(ctxOf(t), was); err != nil {
				t.Fatal(err)
			}
			if err := j.Bury(ctxOf(t), []byte("x buried")); err != nil {
				t.Fatal(err)
			}
			mustPeek(t, q, "tube", id, "x buried")
			mustNone(t, c)
		})
	}
}
