package job

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn"
)

// The key again is read as it was written, and the rest of a job stays as it is to the
// byte.
func TestBuriedBody(t *testing.T) {
	o := &Parent{
		Job: "host:1/17", Seed: Seed{1, 2, 3}, Put: time.Unix(1_700_000_000, 0), Attempt: 7,
		Reason: "503 \"x\"\n<é>", Class: apnsconn.Unavailable, Status: 503, APNsID: "6B29", At: time.Unix(1_700_000_100, 0),
	}
	for body, want := range map[string]string{
		jobText(""): jobText(""),
		" {\n \"token\" : \"x\",\t\"again\":null, \"b\":{\"c\":1,\"again\":{\"d\":2}}}\n": `{"token":"x","b":{"c":1,"again":{"d":2}}}`,
		` { "token" : "x", "b" : [ 1 ] } `:                                                ` { "token" : "x", "b" : [ 1 ]}`,
		`{"token":"x","token":",\"again\":{}"}`:                                           `{"token":"x","token":",\"again\":{}"}`,
		`{}`:                                                                              `{}`,
		`{"data":{"a":1,"again":{}}}`:                                                     `{"data":{"a":1,"again":{}}}`,
		string(BuriedBody([]byte(jobText("")), o, MaxReason)):                             jobText(""),
		string(RemainderBody([]byte(fanOutText(manyTokens(2), "")), manyTokens(1), o)): string(AsPut(RemainderBody([]byte(fanOutText(manyTokens(2), "")), manyTokens(1), o))),
	} {
		got := BuriedBody([]byte(body), o, MaxReason)
		read, err := parentOf(got)
		if err != nil || read == nil || *read != *o {
			t.Fatalf("%s: %+v, %v", got, read, err)
		}
		if put := string(AsPut(got)); put != want || strings.Count(string(got), `"bury"`) != 1 {
			t.Errorf("%s\n as put %s\n want   %s", got, put, want)
		}
	}
	for _, body := range []string{"", "x", "[]", "null", "\xff{}", `{"a":1}x`, `{"again":5}`, `{"again":{}}`, `{"a":"` + "\xff" + `"}`} {
		if got := BuriedBody([]byte(body), o, MaxReason); got != nil {
			t.Errorf("%q became %s", body, got)
		}
		if got := string(AsPut([]byte(body))); got != body {
			t.Errorf("%q as put: %q", body, got)
		}
	}
	if o.APNsID = strings.Repeat("x", 36); len(o.append(nil)) > MaxParent-MaxReason {
		t.Error("there is no room for a reason")
	}
}

// The reason of a body without one: the parser's error, or that it is not recorded.
func TestBurialOf(t *testing.T) {
	for body, want := range map[string]Burial{
		"garbage":                     {Reason: "job: not JSON", Class: "rejected", Tokens: 1},
		`{"colour":1,"ref":"r"}`:      {Reason: `job: "colour": unknown key`, Class: "rejected", Tokens: 1, Ref: "r"},
		jobText(`,"ref":"r"`):         {Reason: NotRecorded, Tokens: 1, Token: testToken[:8], Ref: "r"},
		fanOutText(manyTokens(3), ""): {Reason: NotRecorded, Tokens: 3, Token: manyTokens(1)[0][:8], Ref: BurialOf([]byte(fanOutText(manyTokens(3), "")), topic).Ref},
	} {
		if got := BurialOf([]byte(body), topic); got != want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

// What a list of buried jobs shows of one that cannot be read to its end.
func TestBurialOfABrokenJob(t *testing.T) {
	t.Parallel()
	b := BurialOf([]byte(`{"colour":1,`+tok+`,"ref":"r","title":"cut o`), topic)
	if want := fmt.Sprint("job: not JSON", testToken[:8], "r"); fmt.Sprint(b.Reason, b.Token, b.Ref) != want {
		t.Errorf("%+v", b)
	}
}
