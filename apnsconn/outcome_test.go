package apnsconn

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// reasonRow is one row of testdata/apns-reasons.json.
type reasonRow struct {
	Status  int
	Reason  string
	Meaning string
	Class   string
	Action  string
}

func loadReasonRows(t *testing.T) []reasonRow {
	t.Helper()
	data, err := os.ReadFile("testdata/apns-reasons.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []reasonRow
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// want says which class, and whether a new connection, a row's action asks for.
func (r reasonRow) want(t *testing.T) (Class, bool) {
	t.Helper()
	switch r.Action {
	case "bury":
		return Rejected, false
	case "drop-and-report":
		return Token, false
	case "stop-topic":
		return Credential, false
	case "retry-backoff":
		if r.Status == 429 && r.Reason != "TooManyProviderTokenUpdates" { // not about one device
			return Throttled, false
		}
		return Unavailable, false
	case "reconnect-retry", "refresh-token-retry":
		return Unavailable, true
	}
	t.Fatalf("%d %s: unknown action %q", r.Status, r.Reason, r.Action)
	return 0, false
}

func TestOutcomeOfEveryKnownReason(t *testing.T) {
	t.Parallel()
	rows := loadReasonRows(t)
	listed := make(map[reasonKey]bool, len(rows))
	for _, row := range rows {
		listed[reasonKey{row.Status, row.Reason}] = true
		reason := row.Reason
		if reason == anyReason {
			reason = "SomethingNobodyKnows"
		}
		class, reconnect := row.want(t)
		o := outcomeOf(row.Status, []byte(`{"reason":"`+reason+`"}`))
		if o.Class != class || o.Reconnect() != reconnect || o.Status != row.Status || o.Reason != reason || o.Err != nil {
			t.Errorf("%d %s: got %s, reconnect %t (%+v); want %s, reconnect %t",
				row.Status, reason, o.Class, o.Reconnect(), o, class, reconnect)
		}
		if ReasonText(row.Status, reason) == "" {
			t.Errorf("%d %s: no text", row.Status, reason)
		}
	}
	for key := range reasons {
		if !listed[key] {
			t.Errorf("%d %s is in the table but not in testdata/apns-reasons.json", key.status, key.reason)
		}
	}
}

func TestOutcomeOfOtherStatuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status int
		want   Class
	}{
		{200, Delivered},
		{204, Unknown}, {201, Unknown}, {299, Unknown},
		{301, Unavailable}, {307, Unavailable},
		{400, Rejected}, {401, Rejected}, {403, Credential}, {408, Rejected}, {410, Token}, {418, Rejected},
		{429, Throttled}, {499, Rejected},
		{500, Unavailable}, {501, Unavailable}, {502, Unavailable}, {504, Unavailable}, {599, Unavailable},
		{100, Unknown}, {0, Unknown}, {-1, Unknown}, {600, Unknown}, {999, Unknown},
	}
	for _, tt := range tests {
		o := outcomeOf(tt.status, nil)
		if o.Class != tt.want || o.Status != tt.status || o.Reconnect() {
			t.Errorf("status %d: got %+v, want class %s and no reconnect", tt.status, o, tt.want)
		}
		if (o.Err != nil) != (o.Class == Unknown) {
			t.Errorf("status %d, class %s: Err is %v", tt.status, o.Class, o.Err)
		}
		if ReasonText(tt.status, "") == "" {
			t.Errorf("status %d: no text", tt.status)
		}
	}
}

func TestOutcomeOfBodies(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1700000000123).UTC()
	tests := []struct {
		name, body string
		status     int
		class      Class
		reason     string
		since      time.Time
	}{
		{"unregistered", `{"reason":"Unregistered","timestamp":1700000000123}`, 410, Token, "Unregistered", at},
		{"spaces", "\n { \"timestamp\" : 1700000000123 , \"reason\" : \"Unregistered\" } \r\n", 410, Token, "Unregistered", at},
		{"no timestamp", `{"reason":"ExpiredToken"}`, 410, Token, "ExpiredToken", time.Time{}},
		{"no reason", `{"timestamp":1700000000123}`, 410, Token, "", at},
		{"timestamp as float", `{"reason":"Unregistered","timestamp":1700000000123.9}`, 410, Token, "Unregistered", at},
		{"timestamp as exponent", `{"reason":"Unregistered","timestamp":1.700000000123e12}`, 410, Token, "Unregistered", at},
		{"timestamp as string", `{"reason":"Unregistered","timestamp":"1700000000123"}`, 410, Token, "Unregistered", at},
		{"timestamp null", `{"reason":"Unregistered","timestamp":null}`, 410, Token, "Unregistered", time.Time{}},
		{"timestamp negative", `{"reason":"Unregistered","timestamp":-5}`, 410, Token, "Unregistered", time.Time{}},
		{"timestamp beyond time", `{"reason":"Unregistered","timestamp":1e300}`, 410, Token, "Unregistered", time.Time{}},
		{"timestamp beyond year 9999", `{"reason":"Unregistered","timestamp":253402300800000}`, 410, Token, "Unregistered", time.Time{}},
		{"timestamp NaN", `{"reason":"Unregistered","timestamp":"NaN"}`, 410, Token, "Unregistered", time.Time{}},
		{"timestamp object", `{"reason":"Unregistered","timestamp":{}}`, 410, Token, "Unregistered", time.Time{}},
		{"timestamp only with 410", `{"reason":"BadDeviceToken","timestamp":1700000000123}`, 400, Token, "BadDeviceToken", time.Time{}},
		{"more keys", `{"reason":"BadDeviceToken","detail":{"a":[1]}}`, 400, Token, "BadDeviceToken", time.Time{}},

		{"empty", "", 400, Rejected, "", time.Time{}},
		{"not JSON", "<html>Bad Gateway</html>", 502, Unavailable, "", time.Time{}},
		{"cut off", `{"reason":"BadDeviceTo`, 400, Rejected, "", time.Time{}},
		{"array", `["BadDeviceToken"]`, 400, Rejected, "", time.Time{}},
		{"null", `null`, 403, Credential, "", time.Time{}},
		{"reason a number", `{"reason":7,"timestamp":1700000000123}`, 410, Token, "", at},
		{"reason null", `{"reason":null}`, 400, Rejected, "", time.Time{}},
		{"too long a body", `{"reason":"BadDeviceToken","x":"` + strings.Repeat("x", maxBody) + `"}`, 400, Rejected, "", time.Time{}},

		{"unknown reason", `{"reason":"NewInIOS31"}`, 410, Token, "NewInIOS31", time.Time{}},
		{"reason of another status", `{"reason":"Unregistered"}`, 400, Rejected, "Unregistered", time.Time{}},
		{"wildcard from the wire", `{"reason":"*"}`, 403, Credential, "*", time.Time{}},
		{"log forging", `{"reason":"Bad\r\nlevel=error\u0000\u001b[31m\u202e!"}`, 400, Rejected, "Badlevel=error[31m!", time.Time{}},
		{"invalid UTF-8", "{\"reason\":\"Bad\xff\xfe!\"}", 400, Rejected, "Bad!", time.Time{}},
		{"long reason", `{"reason":"` + strings.Repeat("x", 100) + `"}`, 400, Rejected, strings.Repeat("x", 64), time.Time{}},
		{"long reason cut between characters", `{"reason":"` + strings.Repeat("€", 30) + `"}`, 400, Rejected, strings.Repeat("€", 21), time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := outcomeOf(tt.status, []byte(tt.body))
			if o.Status != tt.status || o.Class != tt.class || o.Reason != tt.reason || !o.Since.Equal(tt.since) || o.Err != nil {
				t.Errorf("got %+v\nwant status %d, class %s, reason %q, since %v", o, tt.status, tt.class, tt.reason, tt.since)
			}
		})
	}
}

func TestCredentialReason(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]bool{
		"BadCertificate": true, "BadCertificateEnvironment": true, "InvalidProviderToken": true, "TopicDisallowed": true,
		"ExpiredProviderToken": false, "Forbidden": false, "IdleTimeout": false, "Shutdown": false, "BadDeviceToken": false,
		"SomethingNobodyKnows": false, "": false,
	} {
		if got := credentialReason(reason); got != want {
			t.Errorf("credentialReason(%q) = %t, want %t", reason, got, want)
		}
	}
}

func TestClassString(t *testing.T) {
	t.Parallel()
	want := []string{"class(0)", "delivered", "token", "rejected", "throttled", "unavailable", "credential", "not_sent", "unknown", "class(9)"}
	for i, w := range want {
		if got := Class(i).String(); got != w {
			t.Errorf("Class(%d) = %q, want %q", i, got, w)
		}
	}
}

func TestReasonTextsAreShort(t *testing.T) {
	t.Parallel()
	for key, v := range reasons {
		if v.text == "" || len(v.text) > 120 || strings.HasSuffix(v.text, ".") {
			t.Errorf("%d %s: text %q", key.status, key.reason, v.text)
		}
	}
	if got := ReasonText(410, "ExpiredToken"); got != "the device token has expired" {
		t.Errorf("410 ExpiredToken: %q", got)
	}
	if got := ReasonText(418, "x\ny"); strings.Contains(got, "\n") {
		t.Errorf("text repeats the reason: %q", got)
	}
}

// TestOutcomeOfDeliveredIsFree: every push takes this path.
func TestOutcomeOfDeliveredIsFree(t *testing.T) {
	var o Outcome
	if n := testing.AllocsPerRun(100, func() { o = outcomeOf(200, nil); _ = o.Reconnect() }); n != 0 {
		t.Errorf("%v allocations for a 200 (%+v)", n, o)
	}
}

func FuzzOutcomeOf(f *testing.F) {
	for _, body := range []string{
		"", "{}", `{"reason":"Unregistered","timestamp":1700000000123}`, `{"reason":"Shutdown"}`,
		`{"reason":["a"],"timestamp":"x"}`, `{"REASON":"\ud800\u0000"}`, "\xff\xfe", `{"timestamp":1e999}`, `[[[[`,
	} {
		for _, status := range []int{200, 400, 403, 410, 503, 0, 302} {
			f.Add(status, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		before := string(body)
		o := outcomeOf(status, body)
		switch {
		case string(body) != before:
			t.Error("body was changed")
		case o.Status != status:
			t.Errorf("status %d became %d", status, o.Status)
		case o.Class < Delivered || o.Class > Unknown || o.Class == NotSent:
			t.Errorf("class %s", o.Class)
		case (o.Class == Delivered) != (status == 200):
			t.Errorf("status %d is %s", status, o.Class)
		case (o.Err != nil) != (o.Class == Unknown):
			t.Errorf("class %s with Err %v", o.Class, o.Err)
		case len(o.Reason) > maxReason || !utf8.ValidString(o.Reason) || strings.ContainsFunc(o.Reason, func(r rune) bool { return !unicode.IsPrint(r) }):
			t.Errorf("reason %q", o.Reason)
		case !o.Since.IsZero() && (status != 410 || o.Since.Year() < 1970 || o.Since.Year() > 9999):
			t.Errorf("status %d, since %v", status, o.Since)
		}
		if _, err := json.Marshal(o.Since); err != nil {
			t.Error(err)
		}
		_ = o.Reconnect()
		_ = ReasonText(status, o.Reason)
	})
}

func BenchmarkOutcomeOfError(b *testing.B) {
	body := []byte(`{"reason":"Unregistered","timestamp":1700000000123}`)
	b.ReportAllocs()
	for b.Loop() {
		outcomeOf(410, body)
	}
}

// Each reason comes with one status, so that it can be told from the reason.
func TestReasonStatus(t *testing.T) {
	t.Parallel()
	for key := range reasons {
		if key.reason != anyReason && ReasonStatus(key.reason) != key.status {
			t.Errorf("%q has the status %d and %d", key.reason, ReasonStatus(key.reason), key.status)
		}
	}
	for reason, want := range map[string]int{"BadCertificate": 403, "Unregistered": 410, "": 0, anyReason: 0, "New": 0} {
		if got := ReasonStatus(reason); got != want {
			t.Errorf("%q: %d", reason, got)
		}
	}
}

// The reason of an app's state or of a burial begins with APNs' answer if it is one.
func TestExplain(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"403 BadCertificate": "The client certificate is not valid; renew it", "413 PayloadTooLarge after 3 tries": "The payload is over 4096 bytes (5120 for voip and broadcasts)",
		"": "", "worker: no answer": "", "4711 tries": "",
	} {
		if got := Explain(reason); got != want {
			t.Errorf("%q: %q", reason, got)
		}
	}
}
