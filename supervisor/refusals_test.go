package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/worker/feedback"
)

// refusal is how APNs answers for the token i in the test below: four of five
// tokens are refused, two of ten in a way that the environment guard suspects.
func refusal(i int) apnstest.Answer {
	switch i % 10 {
	case 0, 1, 5, 6:
		return apnstest.Answer{Status: 410, Reason: "Unregistered", Timestamp: time.Unix(1_700_000_000+int64(i), 0)}
	case 2:
		return apnstest.Answer{Status: 400, Reason: "BadDeviceToken"}
	case 3, 8:
		return apnstest.Answer{Status: 410, Reason: "ExpiredToken", Timestamp: time.Unix(1_700_000_000+int64(i), 0)}
	case 7:
		return apnstest.Answer{Status: 400, Reason: "DeviceTokenNotForTopic"}
	}
	return apnstest.Answer{}
}

// 10,000 refusals, of jobs with one token and with many, by four workers at
// once, give 10,000 records, and the other 2,500 pushes none.
func TestTenThousandRefusals(t *testing.T) {
	const single, each, many = 2_500, 40, 250 // jobs with one token; tokens of each of the others
	const tokens = single + each*many
	const refused = tokens * 4 / 5
	w := newWorld(t, apnstest.Options{Delay: time.Millisecond, Script: func(r *apnstest.Request) apnstest.Answer {
		i, _ := strconv.ParseInt(r.Token, 16, 64)
		return refusal(int(i))
	}})
	var bodies []string
	for i := range many {
		list := make([]string, each)
		for k := range list {
			list[k] = token(single + i*each + k)
		}
		bodies = append(bodies, fmt.Sprintf(`{"tokens":["%s"],"title":"many","ref":"many"}`, strings.Join(list, `","`)))
		for k := range single / many {
			bodies = append(bodies, fmt.Sprintf(`{"token":%q,"title":"one","ref":"one"}`, token(i*(single/many)+k)))
		}
	}
	w.put(topic, bodies...)
	w.start(w.app(topic, "workers: 4", "in_flight: 100", "feedback: {tube: dead}"))
	// What the guard holds at the end waits for a push that goes well.
	last := 0
	w.until("all settled", func() bool {
		if w.tube(topic, "current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed") == 0 {
			return true
		}
		if w.apns.Count() >= int64(tokens+last) {
			w.put(topic, jobBody(tokens+4+5*last))
			last++
		}
		return false
	})
	w.halt() // no record comes late

	seen := make(map[int]feedback.Record)
	for _, r := range w.records("dead") {
		i, err := strconv.ParseInt(r.Token, 16, 64)
		if err != nil {
			t.Fatalf("record for the token %q", r.Token)
		}
		if _, twice := seen[int(i)]; twice {
			t.Errorf("two records for the token %d", i)
		}
		seen[int(i)] = r
	}
	if len(seen) != refused {
		t.Errorf("%d tokens with a record, want %d", len(seen), refused)
	}
	for i := range tokens {
		a := refusal(i)
		r, recorded := seen[i]
		ref, since := "many", int64(0)
		if i < single {
			ref = "one"
		}
		if !a.Timestamp.IsZero() {
			since = a.Timestamp.Unix()
		}
		switch {
		case recorded != (a.Status != 0):
			t.Fatalf("token %d, answered %d %s: recorded %v", i, a.Status, a.Reason, recorded)
		case !recorded:
		case r.Topic != topic || r.Class != "token" || r.Status != a.Status || r.Reason != a.Reason || r.Since != since ||
			r.Ref != ref || r.Job == "" || r.APNsID == "" || r.At.IsZero():
			t.Fatalf("token %d, answered %d %s: %+v", i, a.Status, a.Reason, r)
		}
	}
	c := &w.sup.totals[topic].Counters
	if dead, sent := c.Ended(apnsconn.Token), c.Ended(apnsconn.Delivered); dead != refused || sent != int64(tokens-refused+last) {
		t.Errorf("counted %d refused and %d delivered, want %d and %d", dead, sent, refused, tokens-refused+last)
	}
	if n := w.apns.Count(); n != int64(tokens+last) {
		t.Errorf("%d requests for %d tokens", n, tokens+last)
	}
	if w.log.contains("wrong environment") {
		t.Error("the environment guard has tripped")
	}
}

// records takes all records from a feedback tube.
func (w *world) records(tube string) []feedback.Record {
	w.t.Helper()
	c := w.bs.Dial()
	defer c.Close()
	set := gobeanstalk.NewTubeSet(c, tube)
	var out []feedback.Record
	for {
		id, body, err := set.Reserve(0)
		if errors.Is(err, gobeanstalk.ErrTimeout) {
			return out
		}
		if err != nil {
			w.t.Fatalf("reserve: %v", err)
		}
		var r feedback.Record
		if err := json.Unmarshal(body, &r); err != nil {
			w.t.Fatalf("record: %v: %s", err, body)
		}
		out = append(out, r)
		if err := c.Delete(id); err != nil {
			w.t.Fatalf("delete: %v", err)
		}
	}
}
