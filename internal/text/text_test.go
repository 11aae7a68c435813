package text

import (
	"strings"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	t.Parallel()
	is := func(what any, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%v: %q, want %q", what, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 9999: "9999", 10000: "10,000", 1234567: "1,234,567", -12345: "-12345"} {
		is(n, Count(n), want)
	}
	for n, want := range map[int]string{0: "0 jobs", 1: "1 job", 2: "2 jobs", 12345: "12,345 jobs"} {
		is(n, Plural(n, "job"), want)
	}
	for ms, want := range map[float64]string{0.25: "0.2 ms", 9.94: "9.9 ms", 40.2: "40 ms", 1500: "1.5 s", 20_000: "20 s"} {
		is(ms, Millis(ms), want)
	}
	for d, want := range map[time.Duration]string{-1: "0 s", 119 * time.Second: "119 s", 119 * time.Minute: "119 min", 47 * time.Hour: "47 h", 72 * time.Hour: "3 d"} {
		is(d, Age(d), want)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	for left, want := range map[time.Duration][2]string{
		-time.Hour: {"expired", "now"}, time.Hour: {"today", "now"}, 25 * time.Hour: {"in 1 day", "now"}, 49 * time.Hour: {"in 2 days", "now"}, 10 * 24 * time.Hour: {"in 10 days", "soon"}, 31 * 24 * time.Hour: {"2001-10-10", ""},
	} {
		if when, urgency := Expiry(now.Add(left), now); when != want[0] || urgency != want[1] {
			t.Errorf("%v: %s %s", left, when, urgency)
		}
	}
	if when, urgency := Expiry(time.Time{}, now); when+urgency != "" {
		t.Errorf("without one: %s %s", when, urgency)
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	if got, want := Line("a\nb\rc\x00\x1b[2J\xff\u202e"), "a; b c  [2J\uFFFD\uFFFD"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := Printable("a\n\x1b[2J\u202e"), "a\n\uFFFD[2J\uFFFD"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Cut(strings.Repeat("é", 9), 8); got != strings.Repeat("é", 7)+"…" || Cut("éé", 2) != "éé" {
		t.Errorf("%q", got)
	}
}

func TestCutTokens(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0", 63) + "1"
	for job, want := range map[string]string{
		`{"token":"` + long + `","title":"x"}`:                      `{"token":"00000000…","title":"x"}`,
		`{ "tokens" : [ "` + long + `" , "abc", "ABCDEFGHIJ" ] }`:   `{ "tokens" : [ "00000000…" , "abc", "ABCDEFGH…" ] }`,
		`{"title":"token","token":"<00fc13ad f785122b>","badge":3}`: `{"title":"token","token":"<00fc13a…","badge":3}`,
		`{"data":{"token":"one of theirs"}}`:                        `{"data":{"token":"one of t…"}}`,
		`{"data":{"k":"` + long + `"}}`:                             `{"data":{"k":"00000000…"}}`,
		`{"token":"` + long:                                         `{"token":"00000000…"`,
		`{"token":"zzzzzzzzz\`:                                      `{"token":"zzzzzzzz…"`,
		`{"tokens":["zzzzzzzzz\"z","short"`:                         `{"tokens":["zzzzzzzz…","short"`,
		`{"token":null,"token":12345678901,"x":"y"}`:                `{"token":null,"token":12345678901,"x":"y"}`,
		`{"data":{"k":"<00fc13ad ff785122 b4ad2889 00fc13ad 01020304 05060708 090a0b0c 0d0e0f10>"}}`: `{"data":{"k":"<00fc13ad…>"}}`,
		`{"at":"20260102 20260103 20260104"}`:                                                        `{"at":"20260102 20260103 20260104"}`,
		`{"to\u006ben":"` + long + `"}`:                                                              `{"to\u006ben":"00000000…"}`,
		`no JSON ` + long:                                                                            `no JSON 00000000…`,
		``:                                                                                           ``,
		`{"a":1,"b":[1,2],"token":"123456789"}`:                                                      `{"a":1,"b":[1,2],"token":"12345678…"}`,
	} {
		if got := CutTokens(job); got != want {
			t.Errorf("%s\n gives %s\nwant   %s", job, got, want)
		}
	}
}
