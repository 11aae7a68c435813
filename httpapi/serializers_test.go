package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"propeller/worker/job"
)

// Every way in takes what serializers write: a byte order mark, escapes, nulls and PHP's
// empty lists.
func TestEveryEntranceTakesWhatSerializersWrite(t *testing.T) {
	t.Parallel()
	const bom = "\xef\xbb\xbf"
	const more = `,"body":"\u4e2d\/","badge":3,"aps":{"badge":null,"alert":[]},"data":[]`
	stored := `{"token":"` + goodToken + `","title":"x","body":"中/","badge":3,"aps":{"badge":null,"alert":[]},"data":[]} 0s`
	one := notification(more)
	for name, test := range map[string]struct {
		body, kind string
		jobs       int
	}{
		"one":    {bom + one, "", 1},
		"a list": {bom + "\n[" + one + "," + one + "]", "", 2},
		"stream": {bom + one + "\r\n" + one + "\n", ndjson, 2},
	} {
		tree := new(putTree)
		w := send(newKeyed(tree), "sender-0123", "POST", "/v1/notifications", test.body, "Content-Type", test.kind)
		if w.Code != 202 || len(tree.jobs) != test.jobs || tree.jobs[0] != stored || tree.jobs[test.jobs-1] != stored {
			t.Errorf("%s: %d %s\n%q", name, w.Code, w.Body, tree.jobs)
		}
	}
	tree := new(putTree)
	h := newKeyed(tree)
	job := bom + strings.Replace(one, `"topic":"`+topic+`",`, "", 1)
	if w := send(h, "sender-0123", "POST", "/v1/apps/"+topic+"/jobs", job); w.Code != 200 || len(tree.jobs) != 1 || !strings.HasPrefix(tree.jobs[0], job) {
		t.Errorf("a job: %d %s %q", w.Code, w.Body, tree.jobs)
	}
	var got lintResult
	w := send(h, "sender-0123", "POST", "/v1/lint", bom+one)
	const payload = `{"aps":{"alert":{"title":"x","body":"中/"},"badge":3}}`
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || !got.OK || string(got.Payload) != payload || got.PayloadBytes != len(payload) {
		t.Errorf("lint: %d %s", w.Code, w.Body)
	}
}

// Every way in refuses what can never be sent, by the rules of its app, with the key.
func TestEveryEntranceRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	tree := &putTree{app: job.Rules{TTL: time.Minute, Certificate: true}}
	h := newKeyed(tree)
	for more, key := range map[string]string{
		`,"expiration":3600`:       "expiration",
		`,"push_type":"location"`:  "push_type",
		`,"push_type":"Alert"`:     "push_type",
		`,"colour":1`:              "colour",
		`,"delay":60`:              "delay", // the app's ttl
		`,"at":4000000000,"ttl":9`: "at",
	} {
		one := notification(more)
		fault := fmt.Sprintf(`"key":%q`, key)
		for name, answer := range map[string]*httptest.ResponseRecorder{
			"one":    send(h, "sender-0123", "POST", "/v1/notifications", one),
			"a list": send(h, "sender-0123", "POST", "/v1/notifications", "["+one+"]"),
			"stream": send(h, "sender-0123", "POST", "/v1/notifications", one, "Content-Type", ndjson),
			"lint":   send(h, "sender-0123", "POST", "/v1/lint", one),
		} {
			if body := answer.Body.String(); !strings.Contains(body, fault) || len(tree.jobs) > 0 {
				t.Errorf("%s, %s: %s, put %q", more, name, body, tree.jobs)
			}
		}
		job, query := strings.Replace(one, `"topic":"`+topic+`",`, "", 1), ""
		if key == "at" {
			continue // is no key of a job
		}
		if key == "delay" {
			job, query = strings.Replace(job, more, "", 1), "?delay=60s"
		}
		if w := send(h, "sender-0123", "POST", "/v1/apps/"+topic+"/jobs"+query, job); w.Code != 400 || !strings.Contains(w.Body.String(), fault) || len(tree.jobs) > 0 {
			t.Errorf("%s, a job: %d %s, put %q", more, w.Code, w.Body, tree.jobs)
		}
	}
	form := url.Values{"auth_token": {"sender-0123"}, "topic": {topic}, "token": {goodToken}, "title": {"x"}, "delay": {" 60 "}}
	if w := postForm(h, "", form); w.Code != 400 || !strings.HasPrefix(w.Body.String(), "delay: is 1m0s from now, when the job's ttl") || len(tree.jobs) > 0 {
		t.Errorf("form: %d %s, put %q", w.Code, w.Body, tree.jobs)
	}
	form.Set("delay", " 59 ")
	form.Set("badge", " 3 ")
	if w := postForm(h, "", form); w.Code != 200 || len(tree.jobs) != 1 || !strings.HasSuffix(tree.jobs[0], `"badge":3} 59s`) {
		t.Errorf("form: %d %s, put %q", w.Code, w.Body, tree.jobs)
	}
}

// Keys of the producer's own pass where the app ignores them, everywhere, and lint warns.
func TestEveryEntranceIgnoresExtraKeys(t *testing.T) {
	t.Parallel()
	tree := &putTree{app: job.Rules{ExtraKeys: true}}
	h := newKeyed(tree)
	one := notification(`,"colour":1`)
	for _, body := range []string{one, "[" + one + "]"} {
		if w := send(h, "sender-0123", "POST", "/v1/notifications", body); w.Code != 202 || strings.Contains(w.Body.String(), "error") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := send(h, "sender-0123", "POST", "/v1/notifications", one, "Content-Type", ndjson); !strings.HasPrefix(w.Body.String(), `{"id":`) {
		t.Errorf("stream: %d %s", w.Code, w.Body)
	}
	if w := send(h, "sender-0123", "POST", "/v1/apps/"+topic+"/jobs", strings.Replace(one, `"topic":"`+topic+`",`, "", 1)); w.Code != 200 {
		t.Errorf("a job: %d %s", w.Code, w.Body)
	}
	if w := send(h, "sender-0123", "POST", "/v1/lint", one); !strings.Contains(w.Body.String(), `"ok":true`) || !strings.Contains(w.Body.String(), `"warnings":["job: \"colour\": unknown key: it is ignored`) {
		t.Errorf("lint: %s", w.Body)
	}
	if len(tree.jobs) != 4 {
		t.Errorf("put %q", tree.jobs)
	}
}
