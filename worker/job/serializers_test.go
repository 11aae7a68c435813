package job

import (
	"strings"
	"testing"
	"time"
)

// bom is what some programs write in front of UTF-8.
const bom = "\xef\xbb\xbf"

// tok is what the jobs of these tests begin with.

// Jobs as the serializers of nine languages write them, and the payloads that they are.
func TestJobsOfSerializers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ job, payload, pushType string }{
		"Python json.dumps": {
			`{"token": "` + testToken + `", "title": "\u4f60\u597d \ud83d\ude00", "badge": 3, "data": {"n": 1.0, "e": 1e3, "none": null, "id": 12345678901234567890}}`,
			`{"aps":{"alert":{"title":"你好 😀"},"badge":3},"n":1.0,"e":1e3,"none":null,"id":12345678901234567890}`, "alert"},
		"PHP json_encode": {
			`{` + tok + `,"title":"Gr\u00fc\u00dfe","aps":[],"data":[]}`, `{"aps":{"alert":{"title":"Grüße"}}}`, "alert"},
		"PHP, empty deeper": {
			`{` + tok + `,"aps":{"alert":[],"content-available":1},"data":{"url":"https:\/\/example.com\/","list":[]}}`,
			`{"aps":{"content-available":1},"url":"https://example.com/","list":[]}`, "background"},
		"PHP JSON_PRETTY_PRINT": {
			"{\n    " + tok + ",\n    \"aps\": [\n    ],\n    \"badge\": 3\n}", `{"aps":{"badge":3}}`, "alert"},
		"PHP, empty payload": {`{` + tok + `,"payload":[ ],"push_type":"alert"}`, `{}`, "alert"},
		"Ruby to_json": {
			`{` + tok + `,"title":"<b>","aps":{"alert":{"title-loc-key":"A","loc-args":["\u2028"]}},"data":{"f":-0.0}}`,
			`{"aps":{"alert":{"title":"<b>","title-loc-key":"A","loc-args":["` + "\u2028" + `"]}},"f":-0.0}`, "alert"},
		"Java Jackson": {
			`{` + tok + `,"tokens":null,"title":"Hi","body":null,"badge":3,"sound":null,"aps":{"alert":null,"badge":null,"sound":null,"thread-id":null},"data":null,"push_type":null,"ttl":null}`,
			`{"aps":{"alert":{"title":"Hi"},"badge":3}}`, "alert"},
		"Java Jackson, a silent push": {
			`{` + tok + `,"content_available":true,"aps":{"alert":{"title":null,"body":null},"badge":null}}`,
			`{"aps":{"content-available":1}}`, "background"},
		"Java Jackson, nulls that are meant": {
			`{` + tok + `,"push_type":"liveactivity","aps":{"event":"update","timestamp":1,"content-state":{"score":null},"alert":{"title":null,"body":"b"}},"data":{"x":null}}`,
			`{"aps":{"alert":{"body":"b"},"event":"update","timestamp":1,"content-state":{"score":null}},"x":null}`, "liveactivity"},
		"Go encoding/json": {
			`{` + tok + `,"title":"a \u003c b \u0026 c \u003e d","data":{"rs":"\u2029","del":"` + "\x7f" + `"}}` + "\n",
			`{"aps":{"alert":{"title":"a < b & c > d"}},"rs":"` + "\u2029" + `","del":"` + "\x7f" + `"}`, "alert"},
		"C# System.Text.Json": {
			bom + `{` + tok + `,"title":"Caf\u00E9 \u002B \u0022x\u0022 \u0027","body":null,"badge":null,"aps":{"alert":{"title":null,"subtitle":"s","loc-key":null}}}`,
			`{"aps":{"alert":{"title":"Café + \"x\" '","subtitle":"s"}}}`, "alert"},
		"JavaScript JSON.stringify": {
			`{` + tok + `,"title":"\ud83d cut","data":{"half":"\udE00","nul":"a\u0000b","big":1e+21,"nan":null}}`,
			`{"aps":{"alert":{"title":"\ud83d cut"}},"half":"\udE00","nul":"a\u0000b","big":1e+21,"nan":null}`, "alert"},
		"Perl JSON::PP": {
			"{\n   \"title\" : \"\\u00e4\\t\",\n   \"token\" : \"" + testToken + "\",\n   \"badge\" : \"3\",\n   \"data\" : {\n      \"k\" : [\n         1,\n         -0\n      ]\n   }\n}\n",
			`{"aps":{"alert":{"title":"ä\t"},"badge":3},"k":[1,-0]}`, "alert"},
		"Rust serde_json": {
			`{` + tok + `,"title":"é\u0001","subtitle":null,"relevance_score":1.0,"aps":{"badge":null,"x":{"a":null}},"data":{"f":1e-7}}`,
			`{"aps":{"alert":{"title":"é\u0001"},"relevance-score":1.0,"x":{"a":null}},"f":1e-7}`, "alert"},
		"keys with escapes": {
			`{` + tok + `,"t\u0069tle":"x","aps":{"\u0061lert":{"body\/":"b"},"b\u0061dge":null},"data":{"\u00fc \ud800": 1}}`,
			`{"aps":{"alert":{"title":"x","body/":"b"}},"ü \ud800":1}`, "alert"},
	} {
		j := parse(t, test.job)
		if n := j.Notification; string(n.Payload) != test.payload || n.PushType != test.pushType {
			t.Errorf("%s: %s push\n%s\nwant %s\n%s", name, n.PushType, n.Payload, test.pushType, test.payload)
		}
		e, err := ParseEnvelope([]byte(test.job), j.TokenSince)
		if err != nil {
			t.Fatal(err)
		}
		e.Topic = topic
		viaHTTP, err := e.Parse(&Rules{Topic: e.Topic}, time.Now())
		if err != nil || string(viaHTTP.Notification.Payload) != test.payload {
			t.Errorf("%s: over HTTP\n%s, %v\nwant\n%s", name, viaHTTP.Notification.Payload, err, test.payload)
		}
		if stored := parse(t, string(e.Job)); string(stored.Notification.Payload) != test.payload {
			t.Errorf("%s: from the queue, after HTTP\n%s\nwant\n%s", name, stored.Notification.Payload, test.payload)
		}
	}
}

// What counts against APNs' limit are the bytes of the shortest form.
func TestEscapesAgainstTheLimit(t *testing.T) {
	t.Parallel()
	text := strings.Repeat(`\u4e2d`, 700) // 4,200 bytes, as UTF-8 2,100
	short := strings.ReplaceAll(text, `\u4e2d`, "中")
	for job, want := range map[string]string{
		`{` + tok + `,"body":"` + text + `"}`:                                     `{"aps":{"alert":{"body":"` + short + `"}}}`,
		`{` + tok + `,"aps":{"alert":"` + text + `"}}`:                            `{"aps":{"alert":"` + short + `"}}`,
		`{` + tok + `,"aps":{"alert":{"body":"` + text + text[:2400] + `"}}}`:     `{"aps":{"alert":{"body":"` + short + short[:1200] + `"}}}`,
		`{` + tok + `,"aps":{"x":[1` + strings.Repeat(" ", 9000) + `]}}`:          `{"aps":{"x":[1]}}`,
		`{` + tok + `,"data":{"` + text + `": 1}}`:                                `{"aps":{},"` + short + `":1}`,
		`{` + tok + `,"payload":{"aps": {"alert": "` + text[:600] + `"}}}`:        `{"aps": {"alert": "` + text[:600] + `"}}`, // fits as it is
		`{` + tok + `,"payload":{"aps": {"alert": "` + text + `"}}}`:              `{"aps":{"alert":"` + short + `"}}`,
		`{` + tok + `,"push_type":"voip","payload":{"a": "` + text + `"}}`:        `{"a": "` + text + `"}`,
		`{"channel_id":"eA==","payload":{"a": "` + text + `"}}`:                   `{"a": "` + text + `"}`,
		`{` + tok + `,"push_type":"voip","payload":{"a": "` + text + text + `"}}`: `{"a":"` + short + short + `"}`,
	} {
		n := parse(t, job).Notification
		if string(n.Payload) != want || len(n.Payload) > n.MaxPayload() {
			t.Errorf("%.100s…:\n%.300s\nwant\n%.300s", job, n.Payload, want)
		}
		viaHTTP, err := putNow(&Rules{Topic: topic}, job)
		if got := viaHTTP.Notification.Payload; err != nil || string(got) != want {
			t.Errorf("%.100s…, over HTTP:\n%.300s, %v\nwant\n%.300s", job, got, err, want)
		}
	}
	_, err := Parse([]byte(`{`+tok+`,"payload":{"aps": {"alert": "`+text+text+`"}}}`), topic, "1")
	if want := "job: payload: has 4220 bytes, at most 4096 are allowed"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A job with a byte order mark in front is buried, shown, kicked and split as others are.
func TestByteOrderMarkInTheTube(t *testing.T) {
	t.Parallel()
	o := &Parent{Job: "1", Put: testNow, Attempt: 1, Reason: "because"}
	body := bom + " " + jobText(`,"ref":"r"`)
	buried := BuriedBody([]byte(body), o, MaxReason)
	if b := BurialOf(buried, topic); b.Reason != "because" || b.Ref != "r" || b.Token != testToken[:8] {
		t.Errorf("%s: %+v", buried, b)
	}
	if put := string(AsPut(buried)); put != body {
		t.Errorf("as put: %q", put)
	}
	if j, err := Parse(Kicked(buried), topic, "1"); err != nil || j.Refused() != "" || j.Parent == nil {
		t.Errorf("kicked: %+v, %v", j, err)
	}
	rest := RemainderBody([]byte(bom+fanOutText(manyTokens(2), "")), manyTokens(1), o)
	if j, err := Parse(rest, topic, "1"); err != nil || len(j.Tokens) != 1 {
		t.Errorf("remainder: %s, %v", rest, err)
	}
	if _, err := Parse([]byte(bom+"\n"), topic, "1"); err == nil || err.Error() != "job: empty" {
		t.Errorf("nothing behind the mark: %v", err)
	}
}
