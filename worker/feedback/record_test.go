package feedback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

func TestWriter(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openQueue(t, srv)
	r := testRecord(1)
	r.App = "lane"
	r.At = r.At.Add(999 * time.Microsecond).In(time.FixedZone("", 3600))
	r.Reason = "<too & late>"
	if err := Writer(q, testTube)(ctxOf(t), r); err != nil {
		t.Fatal(err)
	}
	c := srv.Dial()
	c.TubeSet.Name = map[string]bool{testTube: true}
	_, body, err := c.Reserve(patience)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"app":"lane","topic":"com.example.app","token":"abababababababababababababababababababababababababababababab1001",` +
		`"class":"token","status":410,"reason":"<too & late>","since":1750000000,"ref":"1","job":"1001","at":"2026-01-02T03:04:05.678Z"}`
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

// The largest and worst record fits into a job of beanstalkd.
func TestWriterCuts(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	for name, text := range map[string]string{
		"control":  strings.Repeat("\x01", 100000),
		"not utf8": strings.Repeat("\xff", 100000),
		"quotes":   strings.Repeat(`"`, 100000),
		"line":     strings.Repeat("\u2028", 50000),
		"panda":    strings.Repeat("🐼", 50000),
	} {
		r := Record{
			Topic: text, Token: text, ChannelID: text, Class: text, Status: -1 << 60, Reason: text, Since: -1 << 60,
			APNsID: text, Ref: text, Job: text, At: time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
		}
		if err := Writer(q, testTube)(ctxOf(t), r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		body, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parse(body)
		if err != nil || !utf8.ValidString(got.Reason) || !strings.HasSuffix(got.Reason, "…") {
			t.Errorf("%s: %q, %v", name, got.Reason[:20], err)
		}
	}
	for _, n := range []int{0, 1, 64, 200, maxText} {
		if s := strings.Repeat("a", n); clip(s, maxText) != s {
			t.Errorf("%d bytes are cut", n)
		}
	}
	if s := clip(strings.Repeat("é", 600), maxText); len(s) > maxText || len(s) < maxText-3 || !utf8.ValidString(s) {
		t.Errorf("%d bytes: %q", len(s), s)
	}
}

// Errors keep the queue's meaning and show no token.
func TestWriterErrors(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{
		"unavailable": queue.ErrUnavailable, "rejected": queue.ErrRejected, "cancelled": context.Canceled,
	} {
		q := newFakeQueue()
		q.put = func(context.Context, []byte) error { return want }
		err := Writer(fakeEngine{q}, testTube)(ctxOf(t), testRecord(1))
		if !errors.Is(err, want) || strings.Contains(err.Error(), testToken(1)[:9]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := testRecord(1)
	r.App = "lane"
	r.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := Writer(fakeEngine{newFakeQueue()}, testTube)(ctxOf(t), r); err == nil || strings.Contains(err.Error(), testToken(1)[:9]) {
		t.Errorf("year 10000: %v", err)
	}
}

// A queue that says nothing is not waited for longer than 15 s, and then it is
// unavailable; when the caller gave up, the error says that.
func TestWriterTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newFakeQueue()
		q.put = func(ctx context.Context, _ []byte) error {
			<-ctx.Done()
			return ctx.Err()
		}
		write := Writer(fakeEngine{q}, testTube)
		began := time.Now()
		err := write(context.Background(), testRecord(1))
		if !errors.Is(err, queue.ErrUnavailable) || time.Since(began) != putTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := write(ctx, testRecord(1)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	})
}

var strangers = []struct{ body, want string }{
	{"", "not JSON"},
	{"hello", "not JSON"},
	{`{"topic":"t","class":"token","at":"2026-01-02T03:04:05Z"} x`, "not JSON"},
	{"null", `"topic" is missing`},
	{"[]", "not a JSON object"},
	{`"token"`, "not a JSON object"},
	{"{}", `"topic" is missing`},
	{`{"topic":"t","at":"2026-01-02T03:04:05Z"}`, `"class" is missing`},
	{`{"topic":"t","class":"token"}`, `"at" is missing`},
	{`{"topic":"t","class":"token","at":"secret"}`, `"at" is not a time`},
	{`{"topic":"t","class":"token","at":5}`, `"at" is not a time`},
	{`{"topic":"t","class":"token","status":"secret"}`, `"status" is of the wrong kind`},
	{`{"topic":"t","class":["secret"]}`, `"class" is of the wrong kind`},
	{"{\"topic\":\"secret\xff\",\"class\":\"token\",\"at\":\"2026-01-02T03:04:05Z\"}", "not UTF-8"},
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, s := range strangers {
		_, err := parse([]byte(s.body))
		if err == nil || !strings.HasPrefix(err.Error(), "feedback: not a record: ") || !strings.Contains(err.Error(), s.want) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %s", s.body, err, s.want)
		}
	}
	for i := range 3 {
		want := testRecord(i)
		body, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parse(body); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	// One of a later version, with more in it.
	if _, err := parse([]byte(`{"topic":"t","class":"token","at":"2026-01-02T03:04:05Z","new":[1]}`)); err != nil {
		t.Error(err)
	}
}

// Whatever passes for a record can be put into a request as it is.
func FuzzParse(f *testing.F) {
	for _, s := range strangers {
		f.Add([]byte(s.body))
	}
	body, err := encode(testRecord(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := parse(body); err != nil {
			return
		}
		j := &fakeJob{body: body}
		request := requestBody([]queue.Job{j, j})
		var got struct{ Records []json.RawMessage }
		if err := json.Unmarshal(request, &got); err != nil || len(got.Records) != 2 || !utf8.Valid(request) ||
			!bytes.Equal(got.Records[1], bytes.TrimSpace(body)) {
			t.Fatalf("%q: %v", request, err)
		}
	})
}
