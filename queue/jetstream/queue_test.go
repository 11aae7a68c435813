package jetstream

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/queueurl"
)

func TestOpenRejects(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"nothing": {},
		"both":    {URL: queueurl.URL{Dir: "x", Servers: []string{"a:1"}}},
		"listen":  {URL: embeddedIn("x", "listen", "8.8.8.8:1")},
	} {
		if q, err := Open(o); err == nil {
			t.Errorf("%s: no error", name)
			_ = q.Close()
		}
	}
}

// Different tubes have different consumers.
func TestDurableIsInjective(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	for _, tube := range []string{"a.b", "a_b", "a-b", "ab", "a.b.c", "a.b_c", "A.b", "a--b", "a._b"} {
		if err := queue.CheckTube(tube); err != nil {
			t.Fatal(err)
		}
		d := durable(tube)
		if strings.ContainsAny(d, ". *>/\\") || seen[d] != "" {
			t.Errorf("%q: consumer %q, as %q", tube, d, seen[d])
		}
		seen[d] = tube
	}
}

func TestParseDelivery(t *testing.T) {
	t.Parallel()
	want := delivery{seq: 22, tries: 3, stored: 1700000000000000000}
	for _, s := range []string{
		"$JS.ACK.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5",
		"$JS.ACK._.ACCHASH.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5",
		"$JS.ACK.hub.ACCHASH.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5.x1",
		"$JS.ACK.hub.ACCHASH.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5.x1.more.and.more",
	} {
		if got, err := parseDelivery(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "$JS.ACK", "_INBOX.a.b.c.d.e.f.g.h", "$JS.ACK.a.b.x.22.7.1.5", "$JS.ACK.a.b.3.x.7.1.5", "$JS.ACK.a.b.3.22.7.x.5", "$JS.ACK.a.b.c.3.22.7.1.5"} {
		if got, err := parseDelivery(s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

// docs/queues.md says what the code does.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	size := fmt.Sprint(maxBody(1 << 20))
	for _, want := range []string{
		"stream `" + jobsStream + "`", "stream `" + buriedStream + "`",
		"`" + jobSubject("TUBE") + "`", "`" + schedSubject("TUBE", "ID") + "`", "`" + buriedSubject("TUBE", "ID") + "`",
		"header `" + headerID + "`", "header `" + headerPut + "`",
		jsSchedule, jsScheduleTarget,
		fmt.Sprintf("after %.0f s | after %.0f s", DefaultEmbeddedAckWait.Seconds(), DefaultAckWait.Seconds()),
		fmt.Sprintf("%.0f days", buriedAge.Hours()/24),
		size[:1] + "," + size[1:4] + "," + size[4:] + " bytes",
		fmt.Sprintf("less %d KiB", headerRoom>>10),
		fmt.Sprintf("Server %d.%d or newer", minMajor, minMinor),
		fmt.Sprintf("%d (default)", defaultReplicas),
		"`" + (&fullError{used: 75 << 30, free: 25 << 30}).Error() + "`", fmt.Sprintf("but for %d MiB", 2*trialSize>>20),
		"`" + fullPrefix + ">`", "`" + settlePrefix + ">`",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/queues.md does not say %q", want)
		}
	}
}

// A refused pull is put off for twice as long as the last, whatever bound that had.
func TestRefusedPullIsPutOff(t *testing.T) {
	t.Parallel()
	c := &consumer{}
	for range 20 {
		c.refusedLocked(10 * minPause) // other pulls will have all there is
	}
	for _, most := range []time.Duration{maxPause, limitPause} {
		last := c.pause
		if c.refusedLocked(most); c.pause < last || c.pause > 3*last {
			t.Errorf("%v after %v", c.pause, last)
		}
	}
	for range 20 {
		c.refusedLocked(limitPause)
	}
	if c.pause < limitPause/2 || c.pause > limitPause {
		t.Errorf("%v in the end, want %v at most", c.pause, limitPause)
	}
	if c.refusedLocked(10 * minPause); c.pause > 10*minPause {
		t.Errorf("%v, want %v at most", c.pause, 10*minPause)
	}
}
