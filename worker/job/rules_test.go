package job

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var testNow = time.Unix(1_800_000_000, 0)

// What can never be sent is refused when it is put, with the key and a hint.
func TestJobsThatWouldExpireUnsent(t *testing.T) {
	t.Parallel()
	app := Rules{Topic: topic, TTL: time.Hour}
	for more, want := range map[string]string{
		`,"expiration":0`:                     "",
		`,"expiration":1800000001`:            "",
		`,"expiration":1800000061,"delay":60`: "",
		`,"ttl":61,"delay":60`:                "",
		`,"ttl":86400,"delay":7200`:           "",
		`,"at":0,"expiration":1800000001`:     "", // at once
		`,"at":1700000000`:                    "", // at once
		`,"expiration":3600`:                  "expiration is 3600, a time in 1970: write Unix time in seconds (now: 1800000000), or give a duration as ttl",
		`,"expiration":"3600"`:                "expiration is 3600, a time in 1970",
		`,"expiration":1800000000`:            "expiration is 1800000000, and that time has passed (now: 1800000000)",
		`,"expiration":1799999999,"delay":60`: "expiration is 1799999999",
		`,"expiration":1800000060,"delay":60`: "delay is 2027-01-15T08:01:00Z, when the job's expiration of 2027-01-15T08:01:00Z has passed",
		`,"ttl":60,"delay":60`:                "delay is 1m0s from now, when the job's ttl of 1m0s is over: it would expire unsent",
		`,"delay":3600`:                       "delay is 1h0m0s from now, when the job's ttl of 1h0m0s is over", // the app's
		`,"ttl":60,"at":1800000060`:           "at is 1m0s from now, when",
		`,"at":"2027-01-15T09:00:00Z","expiration":1800000100,"ttl":7200`: "at is 2027-01-15T09:00:00Z, when the job's expiration of 2027-01-15T08:01:40Z has passed",
		`,"at":3600`: "at is 3600, a time in 1970: write Unix time in seconds, or give seconds from now as delay",
	} {
		_, err := putNow(&app, `{"topic":"`+topic+`",`+tok+`,"title":"t"`+more+`}`)
		got := ""
		if fault, ok := err.(*Error); ok {
			got = fault.Key + " " + fault.Why
		}
		if got == "" != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", more, got, want)
		}
	}
	for delay, want := range map[time.Duration]string{time.Second: "", time.Minute: "delay", 2 * time.Minute: "delay"} {
		_, err := app.ParseProduced([]byte(jobText(`,"ttl":60`)), testNow, delay)
		if fault, ok := err.(*Error); ok != (want != "") || ok && fault.Key != want {
			t.Errorf("delay %s: %v", delay, err)
		}
	}
}

func putNow(app *Rules, body string) (Job, error) {
	e, err := ParseEnvelope([]byte(body), testNow)
	if err != nil {
		return Job{}, err
	}
	return e.Parse(app, testNow)
}

// A call that APNs stores rings late.
func TestVoIPIsNotStored(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		app  Rules
		more string
		want string
	}{
		{Rules{Topic: topic}, `,"push_type":"voip"`, "0"},
		{Rules{Topic: topic + ".voip"}, ``, "0"},
		{Rules{Topic: topic}, `,"push_type":"voip","expiration":1800000001`, "1800000001"},
		{Rules{Topic: topic, Expiration: time.Hour}, `,"push_type":"voip"`, "absent"}, // the worker counts it from the try
		{Rules{Topic: topic}, ``, "absent"},
	} {
		j, err := test.app.Parse([]byte(jobText(test.more)), "1")
		got := "absent"
		if at := j.Notification.Expiration; at != nil {
			got = fmt.Sprint(*at)
		}
		if err != nil || got != test.want {
			t.Errorf("%+v %s: %s, %v", test.app, test.more, got, err)
		}
	}
}

// Known words in another spelling are refused with the right one; unknown ones may be
// Apple's next.
func TestSpelling(t *testing.T) {
	t.Parallel()
	for job, want := range map[string]string{
		jobText(`,"push_type":"Alert"`):                                                 `job: push_type: is "Alert": write "alert"`,
		jobText(`,"push_type":"BACKGROUND"`):                                            `job: push_type: is "BACKGROUND": write "background"`,
		jobText(`,"push_type":"live-activity"`):                                         `job: push_type: is "live-activity": write "liveactivity"`,
		jobText(`,"push_type":"push_to_talk"`):                                          `job: push_type: is "push_to_talk": write "pushtotalk"`,
		jobText(`,"push_type":"hologram"`):                                              "",
		`{"channel_id":"eA==","payload":{},"push_type":"LiveActivity"}`:                 `job: push_type: is "LiveActivity": a broadcast is a liveactivity`,
		jobText(`,"interruption_level":"timeSensitive"`):                                `job: interruption_level: the interruption-level "timeSensitive": write "time-sensitive"`,
		jobText(`,"aps":{"interruption-level":"Active"}`):                               `job: aps: the interruption-level "Active": write "active"`,
		jobText(`,"interruption_level":"Active","aps":{"interruption-level":"active"}`): "",
		jobText(`,"interruption_level":"loud"`):                                         "",
		jobText(`,"aps":{"event":"Update","content-state":{}}`):                         `job: aps: the event "Update": write "update"`,
		jobText(`,"push_type":"alert","aps":{"event":"End"}`):                           "", // no Live Activity: the app's own word
		jobText(`,"Body":"x"`):                                                          `job: "Body": unknown key: write "body"`,
		jobText(`,"thread-id":"x"`):                                                     `job: "thread-id": unknown key: write "thread_id"`,
		jobText(`,"contentAvailable":1`):                                                `job: "contentAvailable": unknown key: write "content_available"`,
		jobText(`,"tilte":"x"`):                                                         `job: "tilte": unknown key: did you mean "title"? (extra_keys: ignore allows any key)`,
		jobText(`,"ttl":"1h"`):                                                          `job: ttl: must be a number of seconds, 1 or more`,
		jobText(`,"priority":"high"`):                                                   `job: priority: must be 1, 5 or 10`,
		jobText(`,"expiration":"2023-01-01"`):                                           `job: expiration: must be Unix seconds, a whole number, 0 or more`,
		jobText(`,"colour":1,"size":2`):                                                 `job: "colour": unknown key`,
	} {
		_, err := Parse([]byte(job), topic, "1")
		if got := fmt.Sprint(err); err != nil && got != want || err == nil != (want == "") {
			t.Errorf("%s:\n%v\nwant\n%s", job, err, want)
		}
	}
}

// Numbers in strings may have white space around them, as int() of Python takes them.
func TestWhiteSpaceAroundNumbers(t *testing.T) {
	t.Parallel()
	j, err := putNow(&Rules{Topic: topic}, `{"topic":"t",`+tok+`,"badge":" 3 ","priority":"\t5\n","expiration":" 1800000100","ttl":"90 ","token_since":" 1700000000\r\n","delay":" 7 "}`)
	n := j.Notification
	if err != nil || string(n.Payload) != `{"aps":{"badge":3}}` || n.Priority != 5 || *n.Expiration != 1800000100 || j.TTL != 90*time.Second || j.TokenSince.Unix() != 1700000000 {
		t.Errorf("%+v %s, %v", j, n.Payload, err)
	}
	e, err := ParseEnvelope([]byte(`{"at":" 1800000007 "}`), testNow)
	if later, err2 := ParseEnvelope([]byte(`{"at":" 2027-01-15T08:00:07Z\n"}`), testNow); err != nil || err2 != nil || e.Delay != 7*time.Second || later.Delay != e.Delay {
		t.Errorf("%v %v, %v, %v", e.Delay, later.Delay, err, err2)
	}
	if _, err := Parse([]byte(jobText(`,"badge":3.0`)), topic, "1"); err == nil || err.Error() != "job: badge: is 3.0, and must be a whole number, 0 or more" {
		t.Errorf("3.0: %v", err)
	}
	zeros := strings.Repeat("0", maxDigits-1)
	if maxDigits != 30 { // as docs/job-format.md says
		t.Errorf("at most %d digits", maxDigits)
	}
	if j, err := Parse([]byte(jobText(`,"badge":" `+zeros+`3 "`)), topic, "1"); err != nil || string(j.Notification.Payload) != `{"aps":{"alert":{"title":"t"},"badge":3}}` {
		t.Errorf("%s, %v", j.Notification.Payload, err)
	}
	for _, badge := range []string{`"0` + zeros + `3"`, `" "`, `"3 4"`, `"+3"`, `" -3"`, `"3."`, `3.0`, `1e1`, `-0`} {
		if _, err := Parse([]byte(jobText(`,"badge":`+badge)), topic, "1"); !isFaultOf(err, "badge") {
			t.Errorf("%s: %v", badge, err)
		}
	}
}

// Keys of the producer's own are left out where the app says so, and nowhere else.
func TestExtraKeys(t *testing.T) {
	t.Parallel()
	job := `{"colour":{"a":[1]},` + tok + `,"Title":"x","title":"t","colour":2}`
	app := Rules{Topic: topic}
	if _, err := app.Parse([]byte(job), "1"); !isFaultOf(err, "colour") {
		t.Errorf("strict: %v", err)
	}
	if _, err := putNow(&app, job); !isFaultOf(err, "colour") {
		t.Errorf("strict, over HTTP: %v", err)
	}
	app.ExtraKeys = true
	for name, parse := range map[string]func(job string) (Job, error){
		"queue": func(job string) (Job, error) { return app.Parse([]byte(job), "1") },
		"HTTP":  func(job string) (Job, error) { return putNow(&app, job) },
	} {
		j, err := parse(job)
		if err != nil || string(j.Notification.Payload) != `{"aps":{"alert":{"title":"t"}}}` {
			t.Errorf("%s: %s, %v", name, j.Notification.Payload, err)
		}
		if _, err := parse(jobText(`,"colour":1,"badge":"x"`)); !isFaultOf(err, "badge") {
			t.Errorf("%s: another fault: %v", name, err)
		}
		if _, err := parse(jobText(`,"again":{}`)); !isFaultOf(err, "again") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What works and is perhaps not meant.
func TestWarnings(t *testing.T) {
	t.Parallel()
	app := Rules{Topic: topic, ExtraKeys: true, Certificate: true}
	for job, want := range map[string]string{
		jobText(`,"aps":{"badge":null},"data":{"a":[1,{"b":2}]}`): "",
		jobText(`,"colour":1`): `job: "colour": unknown key: it is ignored (extra_keys)`,
		`{` + tok + `,"aps":{"event":"end","timestamp":1,"content-state":{"a":{"b":null}}}}`: liveWarning + "|aps.content-state.a.b is null, and is sent so",
		jobText(`,"data":{"x":null,"y":[1,null]}`):                                           "x is null, and is sent so|y.1 is null, and is sent so",
		`{` + tok + `,"payload":{"aps":{"alert":null,"badge":1}}}`:                           "aps.alert is null, and is sent so",
		jobText(`,"aps":{"contentAvailable":1,"thread_id":"x"}`):                             "aps.contentAvailable: Apple's key is content-available|aps.thread_id: Apple's key is thread-id",
	} {
		j, err := app.Parse([]byte(job), "1")
		if got := strings.Join(app.Warnings(&j), "|"); err != nil || got != want {
			t.Errorf("%s:\n%s, %v\nwant\n%s", job, got, err, want)
		}
	}
	j, err := app.Parse([]byte(jobText(`,"data":{"x":[`+strings.Repeat("null,", 300)+`null]}`)), "1")
	if got := app.Warnings(&j); err != nil || len(got) != maxWarnings {
		t.Errorf("%d warnings, %v", len(got), err)
	}
}

// A certificate serves no location pushes.
func TestPushTypesOfACertificate(t *testing.T) {
	t.Parallel()
	location := jobText(`,"push_type":"location"`)
	for app, want := range map[Rules]string{
		{Topic: topic}:                                        "",
		{Topic: topic, Certificate: true}:                     "job: push_type: location works with a key for provider tokens (.p8) only, and the app has a certificate",
		{Topic: topic + ".location-query", Certificate: true}: "job: push_type: location works",
	} {
		_, err := app.Parse([]byte(location), "1")
		if got := fmt.Sprint(err); err != nil && !strings.HasPrefix(got, want) || err == nil != (want == "") {
			t.Errorf("%+v: %v", app, err)
		}
	}
}

func TestProducersWriteNoAgain(t *testing.T) {
	t.Parallel()
	app := Rules{Topic: "com.example.app"}
	token := strings.Repeat("0", 64)
	plain := `{"tokens":["` + token + `"],"title":"x"`
	if j, err := app.ParseProduced([]byte(plain+`}`), time.Now(), 0); err != nil || len(j.Tokens) != 1 {
		t.Errorf("%+v, %v", j, err)
	}
	again := `,"again":{"job":"17","seed":"` + strings.Repeat("0", 2*len(Seed{})) + `","put":1,"attempt":1}}`
	if _, err := Parse([]byte(plain+again), "com.example.app", ""); err != nil {
		t.Fatalf("the daemon's own: %v", err)
	}
	_, err := app.ParseProduced([]byte(plain+again), time.Now(), 0)
	if bad, ok := errors.AsType[*Error](err); !ok || bad.Key != "again" {
		t.Errorf("%v, want an error about again", err)
	}
}
