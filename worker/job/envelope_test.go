package job

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseEnvelope(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 500e6, time.UTC)
	for body, want := range map[string]string{
		`{"topic":"a","token":"00","delay":3}`:                               `a 3s {"token":"00"}`,
		` { "delay" : "7" , "x" : [ 1, {"topic":2} ] , "topic":"a\u0062" } `: `ab 7s {"x":[1,{"topic":2}]}`,
		`{"topic":"a","at":1767323050}`:                                      `a 5s {}`, // 4.5 s from now
		`{"at":"2026-01-02T04:04:05+01:00"}`:                                 ` 0s {}`,
		`{"at":0,"topic":null,"delay":null}`:                                 ` 0s {}`,
		`{"title":"a\u00e9\"b"}`:                                             ` 0s {"title":"aé\"b"}`,

		``:                              "job: empty",
		`{"topic":"a"`:                  "job: not JSON",
		`[]`:                            "job: not a JSON object",
		"{\"a\":\"\xff\"}":              "job: not UTF-8",
		`{"app":1}`:                     "job: app: must be a string",
		`{"topic":1}`:                   "job: topic: must be a string",
		`{"topic":"a","topic":"b"}`:     "job: topic: given twice",
		`{"delay":1,"at":2}`:            "job: at: cannot stand beside delay",
		`{"delay":-1}`:                  "job: delay: must be",
		`{"delay":1.5}`:                 "job: delay: must be",
		`{"delay":31536001}`:            "job: delay: must be",
		`{"at":"tomorrow"}`:             "job: at: must be",
		`{"at":true}`:                   "job: at: must be",
		`{"at":1767323050000}`:          "job: at: must be",
		`{"at":"2099-01-02T04:04:05Z"}`: "job: at: is more than a year",
		`{"again":{}}`:                  "job: again: is not what",
	} {
		e, err := ParseEnvelope([]byte(body), now)
		got := fmt.Sprintf("%s %v %s", e.Topic, e.Delay, e.Job)
		if err != nil {
			var fault *Error
			if got = err.Error(); !errors.As(err, &fault) {
				t.Errorf("%s: %T", body, err)
			}
		}
		if got != want && (err == nil || !strings.HasPrefix(got, want)) {
			t.Errorf("%s:\n%s\nwant\n%s", body, got, want)
		}
	}
}

// All tokens are in the jobs, each once, and everything else is in each of them.
func TestSplitJob(t *testing.T) {
	t.Parallel()
	const topic, limit = "com.example.app", 2000
	var tokens []string
	for i := range 100 {
		tokens = append(tokens, fmt.Sprintf("%064x", i))
	}
	list := `"` + strings.Join(tokens, `","`) + `","` + strings.ToUpper(tokens[12]) + `","nonsense"`
	body := []byte(`{"title":"a\u00e9","tokens":[` + list + `],"ref":"r","badge":null}`)
	j, err := Parse(body, topic, "")
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := Split(body, &j, limit)
	if err != nil || len(jobs) != 4 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	var got []string
	malformed := 0
	for _, one := range jobs {
		p, err := Parse(one.Body, topic, "")
		if err != nil || len(one.Body) > limit || one.Tokens != len(p.Tokens) || p.Ref != "r" || string(p.Notification.Payload) != string(j.Notification.Payload) {
			t.Fatalf("%s: %v", one.Body, err)
		}
		got = append(got, p.Tokens...)
		malformed += len(p.Malformed)
	}
	if strings.Join(got, " ") != strings.Join(tokens, " ") || malformed != 1 {
		t.Errorf("%d tokens, %d malformed", len(got), malformed)
	}
	if same, err := Split(body, &j, len(body)); err != nil || len(same) != 1 || &same[0].Body[0] != &body[0] {
		t.Error("a job that fits is another one")
	}
	large := []byte(fanOutText(manyTokens(2000), ""))
	j, err = Parse(large, topic, "")
	if err != nil {
		t.Fatal(err)
	}
	if jobs, err := Split(large, &j, 65535); err != nil || len(jobs[0].Body) > 65535-MaxParent || len(jobs[0].Body) < 65535-MaxParent-100 {
		t.Errorf("%v: there is no room to say why it is buried, or too much", err)
	}
	j, _ = Parse(body, topic, "")
	if _, err := Split(body, &j, 60); err == nil {
		t.Error("split into nothing")
	}
	single := []byte(`{"token":"` + tokens[0] + `","title":"` + strings.Repeat("x", 100) + `"}`)
	p, err := Parse(single, topic, "")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := Split(single, &p, 50); err != nil || len(same) != 1 {
		t.Errorf("%v", err)
	}
}

// A job of which very many would be made is refused: what it repeats in each may be
// large.
func TestSplitJobIntoVeryMany(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{maxParts: true, maxParts + 1: false} {
		var tokens []string
		for i := range n {
			tokens = append(tokens, fmt.Sprintf("%064x", i))
		}
		body := []byte(`{"title":"x","tokens":["` + strings.Join(tokens, `","`) + `"]}`)
		j, err := Parse(body, "com.example.app", "")
		if err != nil {
			t.Fatal(err)
		}
		if jobs, err := Split(body, &j, 110); (err == nil) != want || want && len(jobs) != n {
			t.Errorf("%d tokens: %d jobs, %v", n, len(jobs), err)
		}
	}
}

// What a notification's envelope leaves is a job whenever it was one.
func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte(`{"topic":"a","token":"0011223344556677","title":"x","delay":3}`))
	f.Add([]byte(`{"tokens":["0011223344556677","00"],"data":{"x":[1]},"at":"2026-01-02T03:04:05Z"}`))
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := ParseEnvelope(body, now)
		if err != nil {
			return
		}
		if e.Delay < 0 || e.Delay > MaxDelay+time.Second {
			t.Fatalf("delay %v", e.Delay)
		}
		again, err := ParseEnvelope(e.Job, now)
		if err != nil || string(again.Job) != string(e.Job) || again.Topic != "" || again.Delay != 0 {
			t.Fatalf("%s: %v", e.Job, err)
		}
		e.Topic = "com.example.app"
		j, err := Parse(e.Job, e.Topic, "")
		if same, again := e.Parse(&Rules{Topic: e.Topic}, time.Now()); !reflect.DeepEqual(same, j) || fmt.Sprint(again) != fmt.Sprint(err) {
			t.Fatalf("%s: %+v, %v and %+v, %v", e.Job, j, err, same, again)
		}
		if err != nil {
			return
		}
		jobs, err := Split(e.Job, &j, 1000)
		if err != nil {
			return
		}
		n := 0
		for _, one := range jobs {
			p, err := Parse(one.Body, "com.example.app", "")
			if err != nil && len(jobs) == 1 {
				t.Fatalf("%s: %v", one.Body, err)
			}
			n += len(p.Tokens)
		}
		if n != len(j.Tokens) {
			t.Fatalf("%d tokens of %d", n, len(j.Tokens))
		}
	})
}
