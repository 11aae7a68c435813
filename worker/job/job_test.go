package job

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func parse(t *testing.T, body string) Job {
	t.Helper()
	j, err := Parse([]byte(body), topic, "1")
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return j
}

func TestPayload(t *testing.T) {
	tok := `"token":"` + testToken + `"`
	tests := []struct{ name, job, payload, pushType string }{
		{"python job", `{` + tok + `,"title":"Hi","body":"there","badge":3}`, `{"aps":{"alert":{"title":"Hi","body":"there"},"badge":3}}`, "alert"},
		{"python job with nulls", `{` + tok + `,"title":null,"body":"there","badge":null}`, `{"aps":{"alert":{"body":"there"}}}`, "alert"},
		{"digits as a string", `{` + tok + `,"badge":"007"}`, `{"aps":{"badge":7}}`, "alert"},
		{"text is written as UTF-8", `{` + tok + `, "title" : "\u00e9\n\"é\"" }`, `{"aps":{"alert":{"title":"é\n\"é\""}}}`, "alert"},
		{"all short forms", `{` + tok + `,"title":"a","subtitle":"b","body":"c","badge":0,"sound":"x.caf","category":"C","thread_id":"T","target_content_id":"W","interruption_level":"active","relevance_score":0.5,"filter_criteria":"F","mutable_content":true,"content_available":1}`,
			`{"aps":{"alert":{"title":"a","subtitle":"b","body":"c"},"badge":0,"sound":"x.caf","category":"C","thread-id":"T","target-content-id":"W","interruption-level":"active","relevance-score":0.5,"filter-criteria":"F","mutable-content":1,"content-available":1}}`, "alert"},
		{"flags off", `{` + tok + `,"title":"a","mutable_content":false,"content_available":0}`, `{"aps":{"alert":{"title":"a"}}}`, "alert"},
		{"sound object", `{` + tok + `,"sound":{"critical":1,"name":"s","volume":1}}`, `{"aps":{"sound":{"critical":1,"name":"s","volume":1}}}`, "alert"},
		{"aps over short forms", `{` + tok + `,"title":"a","body":"b","badge":1,"aps":{"badge":9,"alert":{"title":"A","loc-key":"L"},"new-key":[1]}}`,
			`{"aps":{"alert":{"body":"b","title":"A","loc-key":"L"},"badge":9,"new-key":[1]}}`, "alert"},
		{"alert as text", `{` + tok + `,"title":"a","aps":{"alert":"plain"}}`, `{"aps":{"alert":"plain"}}`, "alert"},
		{"data beside aps", `{` + tok + `,"title":"a","data":{"k":{"n":[1,2]},"s":"}"}}`, `{"aps":{"alert":{"title":"a"}},"k":{"n":[1,2]},"s":"}"}`, "alert"},
		{"empty data", `{` + tok + `,"title":"a","data":{}}`, `{"aps":{"alert":{"title":"a"}}}`, "alert"},
		{"payload verbatim", `{` + tok + `,"payload": {"aps" : {"alert":"x"}, "b":1} }`, `{"aps" : {"alert":"x"}, "b":1}`, "alert"},
		{"silent", `{` + tok + `,"content_available":true,"data":{"a":1}}`, `{"aps":{"content-available":1},"a":1}`, "background"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := parse(t, test.job)
			if got := string(j.Notification.Payload); got != test.payload {
				t.Errorf("payload\n got %s\nwant %s", got, test.payload)
			}
			if !json.Valid(j.Notification.Payload) {
				t.Error("payload is not JSON")
			}
			if j.Notification.PushType != test.pushType {
				t.Errorf("push type %q, want %q", j.Notification.PushType, test.pushType)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	j := parse(t, jobText(`,"push_type":"voip","priority":"10","collapse_id":"c","id":"6b29fc40-ca47-1067-b31d-00dd010662da","expiration":"0","ttl":90,"ref":"order 7"`))
	n := j.Notification
	if n.Topic != "com.example.app.voip" || n.PushType != "voip" || n.Priority != 10 || n.CollapseID != "c" || n.ID != "6b29fc40-ca47-1067-b31d-00dd010662da" {
		t.Errorf("got %+v", n)
	}
	if n.Expiration == nil || *n.Expiration != 0 {
		t.Error("expiration 0 is not absent")
	}
	if j.TTL != 90*time.Second || j.Ref != "order 7" {
		t.Errorf("ttl %v, ref %q", j.TTL, j.Ref)
	}
	if n := parse(t, jobText("")).Notification; n.Expiration != nil || n.Priority != 0 || n.Topic != topic {
		t.Errorf("absent headers: %+v", n)
	}
	if n := parse(t, `{"token":"`+testToken+`","content_available":1}`).Notification; n.Priority != 5 {
		t.Errorf("background push with priority %d, want 5", n.Priority)
	}
	if n := parse(t, `{"token":"`+strings.ToUpper(testToken)+`","title":"x"}`).Notification; n.Token != testToken {
		t.Errorf("token %q", n.Token)
	}
}

func TestIDIsStableAcrossTries(t *testing.T) {
	id := func(body, job string) string {
		j, err := Parse([]byte(body), topic, job)
		if err != nil {
			t.Fatal(err)
		}
		return j.Notification.ID
	}
	a := id(jobText(""), "7")
	if b := id(jobText(""), "7"); a != b {
		t.Errorf("%s then %s", a, b)
	}
	if id(jobText(""), "8") == a || id(jobText(`,"badge":1`), "7") == a {
		t.Error("another job has the same id")
	}
}

func TestUnfitJobs(t *testing.T) {
	big := strings.Repeat("x", 4200)
	tests := []struct{ job, key string }{
		{"", ""}, {" \n", ""}, {"x", ""}, {"[]", ""}, {`"s"`, ""}, {"null", ""}, {`{"token":`, ""}, {"{}{}", ""}, {"\xff{}", ""},
		{jobText(`,"data":{"a":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`), ""}, // not even if it were to be left out
		{"{}", "token"}, {`{"title":"a"}`, "token"}, {`{"token":null}`, "token"}, {`{"token":5}`, "token"}, {`{"token":""}`, "token"},
		{`{"token":"abc"}`, "token"}, {`{"token":"00fc 3adf"}`, "token"}, {`{"token":"<00fc13ad>"}`, "token"}, {`{"token":"` + testToken + `\r\n"}`, "token"},
		{`{"token":["` + testToken + `"]}`, "token"},
		{`{"tokens":"` + testToken + `"}`, "tokens"}, {`{"tokens":{}}`, "tokens"}, {`{"tokens":[]}`, "tokens"}, {`{"tokens":[null]}`, "tokens[0]"}, {`{"tokens":["zz", "abc"]}`, "tokens[0]"},
		{`{"tokens":["` + testToken + `"],"channel_id":"x","title":"t"}`, "channel_id"}, {`{"tokens":["` + testToken + `"],"title":"t","id":"6b29fc40-ca47-1067-b31d-00dd010662da"}`, "id"},
		{jobText(`,"token_since":"soon"`), "token_since"}, {jobText(`,"token_since":1700000000000000`), "token_since"}, {`{"channel_id":"eA==","payload":{},"token_since":1}`, "token_since"},
		{jobText(`,"again":{"job":"1","seed":"00112233445566778899aabbccddeeff","put":1,"attempt":1,"status":400}`), "again"},
		{jobText(`,"again":{"job":"1","seed":"00112233445566778899aabbccddeeff","put":1,"attempt":1,"bury":"x","class":"rejected","status":1000}`), "again"},
		{jobText(`,"again":{"job":"1","seed":"00112233445566778899aabbccddeeff","put":1,"attempt":1,"bury":"x","class":"rejected","apns_id":5}`), "again"},
		{jobText(`,"again":{"job":"1","seed":"00112233445566778899aabbccddeeff","put":1,"attempt":1,"bury":"x","class":"rejected","at":-1}`), "again"},
		{`{"tokens":["` + testToken + `"],"title":"t","again":{}}`, "again"}, {`{"tokens":["` + testToken + `"],"title":"t","again":{"job":"1","seed":"zz","put":1,"attempt":1}}`, "again"},
		{`{"tokens":["` + testToken + `"],"title":"t","again":{"job":"1","job":"1","job":"1","seed":"00112233445566778899aabbccddeeff"}}`, "again"},
		{`{"tokens":["` + testToken + `"],"title":"t","again":{"job":"1","seed":"00112233445566778899aabbccddeeff","put":1,"attempt":9999999999}}`, "again"},
		{jobText(`,"colour":"red"`), "colour"}, {jobText(`,"Title":"x"`), "Title"}, {jobText(`,"a\n\"b":1`), "a\n\"b"}, {jobText(`,"tokens":[]`), "tokens"},
		{jobText(`,"title":"again"`), "title"}, {jobText(`,"body":5`), "body"}, {jobText(`,"badge":"x"`), "badge"}, {jobText(`,"badge":1.5`), "badge"},
		{jobText(`,"badge":-1`), "badge"}, {jobText(`,"badge":""`), "badge"}, {jobText(`,"badge":true`), "badge"}, {jobText(`,"badge":99999999999999999999`), "badge"},
		{jobText(`,"sound":1`), "sound"}, {jobText(`,"aps":[1]`), "aps"}, {jobText(`,"aps":{"a":1,"a":2}`), "aps"}, {jobText(`,"aps":{"alert":{"a":1,"a":2}}`), "aps"},
		{jobText(`,"data":"x"`), "data"}, {jobText(`,"data":{"aps":{}}`), "data"}, {jobText(`,"payload":{}`), "title"},
		{`{"token":"` + testToken + `","payload":"x"}`, "payload"},
		{jobText(`,"mutable_content":"yes"`), "mutable_content"}, {jobText(`,"relevance_score":"high"`), "relevance_score"},
		{jobText(`,"priority":7`), "priority"}, {jobText(`,"priority":0`), "priority"}, {jobText(`,"priority":"high"`), "priority"},
		{jobText(`,"expiration":"soon"`), "expiration"}, {jobText(`,"ttl":0`), "ttl"}, {jobText(`,"ttl":-1`), "ttl"}, {jobText(`,"ttl":9000000000000000000`), "ttl"},
		{jobText(`,"id":"not-a-uuid"`), "id"}, {jobText(`,"collapse_id":"` + strings.Repeat("c", 65) + `"`), "collapse_id"},
		{jobText(`,"collapse_id":"a\r\nx: y"`), "collapse_id"}, {jobText(`,"push_type":"alert\r\nx: y"`), "push_type"}, {jobText(`,"push_type":"al ert\u0000"`), "push_type"},
		{jobText(`,"ref":"` + strings.Repeat("r", 257) + `"`), "ref"},
		{jobText(`,"body":"` + big + `"`), "payload"}, {`{"token":"` + testToken + `","payload":{"a":"` + big + `"}}`, "payload"},
	}
	for i, test := range tests {
		t.Run(fmt.Sprintf("%d %.60s", i, test.job), func(t *testing.T) {
			_, err := Parse([]byte(test.job), topic, "1")
			var je *Error
			if !errors.As(err, &je) {
				t.Fatalf("error %v, want an *Error", err)
			}
			if je.Key != test.key {
				t.Errorf("%v: key %q, want %q", err, je.Key, test.key)
			}
			if strings.Contains(err.Error(), testToken) {
				t.Error("the whole token is in the error")
			}
			if strings.Contains(err.Error(), "\n") || je.Why == unknown && !strings.Contains(err.Error(), strconv.Quote(je.Key)) {
				t.Errorf("%q: a key that may be any text is not quoted", err)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	upper := strings.ToUpper(testToken)
	j := parse(t, `{"tokens": [ "`+upper+`" ,"`+testToken+`",
		"\u0061bcdef01"] , "title":"t","token_since":"1700000000"}`)
	if want := []string{testToken, "abcdef01"}; !slices.Equal(j.Tokens, want) || j.Notification.Token != testToken {
		t.Errorf("tokens %q", j.Tokens)
	}
	if !j.TokenSince.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("since %v", j.TokenSince)
	}
	ids := j.Seed.IDs(j.Tokens)
	if j.Notification.ID != ids[:IDLen] || ids[:IDLen] == ids[IDLen:] || ids[14] != '8' || !strings.ContainsRune("89ab", rune(ids[19])) {
		t.Errorf("ids %s, the first %s", ids, j.Notification.ID)
	}
}

// A remainder is the job with fewer tokens, and nothing else of it is changed.
func TestRestBody(t *testing.T) {
	tokens := manyTokens(900)
	body := ` { "title":"a \"quoted\"\n", "tokens" : ["` + strings.Join(tokens, `", "`) + `"], "data":{"tokens":[1], "again":null} ,"ttl":60,"badge":null}`
	j := parse(t, body)
	o := &Parent{Job: "s1.123456789", Seed: j.Seed, Put: time.Unix(1_700_000_000, 0), Attempt: 3}
	rest := RemainderBody([]byte(body), tokens[2:], o)
	again := parse(t, string(rest))
	if string(again.Notification.Payload) != string(j.Notification.Payload) || again.TTL != j.TTL || !slices.Equal(again.Tokens, tokens[2:]) || again.Seed != j.Seed {
		t.Errorf("got %.200s", rest)
	}
	if *again.Parent != *o {
		t.Errorf("%+v", again.Parent)
	}
	if len(rest) > len(body) {
		t.Errorf("%d bytes of %d without two tokens", len(rest), len(body))
	}
	// The remainder of a remainder.
	third := parse(t, string(RemainderBody(rest, tokens[5:6], o)))
	if !slices.Equal(third.Tokens, tokens[5:6]) || *third.Parent != *o || string(third.Notification.Payload) != string(j.Notification.Payload) {
		t.Errorf("%+v", third)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		jobText(""), jobText(`,"aps":{"alert":{"title":"x"}},"data":{"a":[{}]}`), `{"token":"` + testToken + `","payload":{"aps":{}}}`,
		jobText(`,"badge":"3","expiration":"0","priority":"5"`), `{"token":null}`, "{", `{"\u0074oken":"ab"}`,
		fanOutText(manyTokens(3), ""), `{"tokens":["zz",5,null,"\u0061bcdef01" ],"payload":{},"token_since":"5"}`,
		string(RemainderBody([]byte(fanOutText(manyTokens(3), "")), manyTokens(2), &Parent{Job: "1", Put: time.Unix(1, 0)})),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		j, err := Parse(body, topic, "1")
		if err != nil {
			var je *Error
			if !errors.As(err, &je) || je.Why == "" {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		n := &j.Notification
		if !json.Valid(n.Payload) || n.Payload[0] != '{' {
			t.Fatalf("payload is no JSON object: %q", n.Payload)
		}
		if err := n.Validate(); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(body, topic, "1")
		if err != nil || again.Notification.ID != n.ID {
			t.Fatal("not stable across tries")
		}
		if j.Tokens == nil {
			return
		}
		rest, err := Parse(RemainderBody(body, j.Tokens, &Parent{Job: "1", Seed: j.Seed, Put: time.Unix(1, 0)}), topic, "2")
		if err != nil || !slices.Equal(rest.Tokens, j.Tokens) || rest.Notification.ID != n.ID || string(rest.Notification.Payload) != string(n.Payload) {
			t.Fatalf("as a remainder: %v", err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	body := []byte(jobText(`,"body":"a text of the usual length, which is not very long","badge":3,"data":{"order":12345}`))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body, topic, "12345"); err != nil {
			b.Fatal(err)
		}
	}
}

// However many malformed tokens a job has, little of them is kept.
func TestManyMalformedTokens(t *testing.T) {
	var list strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&list, `1,null,"","zz-%d",`, i)
	}
	j, err := Parse([]byte(`{"title":"t","tokens":[`+list.String()+`"`+testToken+`"]}`), topic, "1")
	if err != nil || len(j.Tokens) != 1 || len(j.Malformed) != maxMalformed || j.MoreMalformed != 5003-maxMalformed {
		t.Errorf("%v: %d tokens, %d malformed, %d more", err, len(j.Tokens), len(j.Malformed), j.MoreMalformed)
	}
}

// A token that is cut stays UTF-8, and what is not UTF-8 becomes it.
func TestCutTokensAreUTF8(t *testing.T) {
	for _, text := range []string{strings.Repeat("é", 300), "x" + strings.Repeat("é", 300), strings.Repeat("€", 200)} {
		j, err := Parse([]byte(fanOutText([]string{testToken, text}, "")), topic, "1")
		if err != nil || len(j.Malformed) != 1 {
			t.Fatalf("%v: %+v", err, j.Malformed)
		}
		if got := j.Malformed[0].Text; !utf8.ValidString(got) || len(got) > maxBadToken || len(got) < maxBadToken-3 || !strings.HasPrefix(text, got) {
			t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	}
	if got := string(appendName(nil, "a\xffb")); got != `"a\ufffdb"` {
		t.Errorf("%s", got)
	}
}

// An aps that fits into a payload is taken whatever blanks stand in it; of one that
// does not, no more is read than fits.
func TestLargeAPS(t *testing.T) {
	blanks := strings.Repeat(" ", 6000)
	j := parse(t, jobText(`,"aps":{`+blanks+`"alert":{"body":"b",`+blanks+`"loc-key":"k"}}`))
	if got := string(j.Notification.Payload); strings.Contains(got, " ") {
		t.Errorf("%s", got)
	}
	var keys strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&keys, `"k%d":1,`, i)
	}
	for _, body := range []string{jobText(`,"aps":{` + keys.String() + `"x":1}`), jobText(`,"aps":{"alert":{` + keys.String() + `"x":1}}`)} {
		_, err := Parse([]byte(body), topic, "1")
		if e, ok := errors.AsType[*Error](err); !ok || e.Key != "payload" || !strings.Contains(e.Why, "bytes or more, at most 5120") {
			t.Errorf("%v", err)
		}
	}
	if _, err := Parse([]byte(jobText(`,"aps":{`+strings.Repeat(`"a":1,`, 40)+`"b":1}`)), topic, "1"); err == nil {
		t.Error("a key may be given twice")
	}
	var some strings.Builder
	for i := range 40 {
		fmt.Fprintf(&some, `"k%d":1,`, i)
	}
	parse(t, jobText(`,"aps":{`+some.String()+`"x":1}`))
	if _, err := Parse([]byte(jobText(`,"aps":{`+some.String()+`"k30":1}`)), topic, "1"); err == nil {
		t.Error("the thirtieth key may be given twice")
	}
}
