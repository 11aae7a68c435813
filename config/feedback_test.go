package config

import (
	"bytes"
	"strings"
	"testing"
)

const signing = hidden + "-signing"

// feedbackOf is the feedback of the apps of a file, as "tube webhook secret".
func feedbackOf(t *testing.T, text string, o Options) []string {
	t.Helper()
	var out []string
	for _, a := range mustParse(t, text, o).Apps {
		out = append(out, strings.Join([]string{a.Feedback.Tube, a.Feedback.Webhook.Reveal(), a.Feedback.Secret.Reveal()}, " "))
	}
	return out
}

func TestFeedback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "secret", []byte("from-a-file-0123456789\n"))
	write(t, dir, "webhook", []byte("https://me:pw@example.com/file\n"))
	o := Options{Dir: dir, Getenv: env(map[string]string{"S": signing})}
	for text, want := range map[string]string{
		"apps: [{topic: a, server: mock}]":                                                                  "  ",
		"apps: [{topic: a, server: mock, feedback: {tube: b}}]":                                             "b  ",
		"apps: [{topic: a, server: mock, feedback: }]":                                                      "  ",
		"apps: [{topic: a, server: mock, feedback: {webhook: 'http://h', secret: '${S}'}}]":                 "a.feedback http://h " + signing,
		"apps: [{topic: a, tube: b, server: mock, feedback: {webhook: 'http://h', secret: '${S}'}}]":        "b.feedback http://h " + signing,
		"apps: [{topic: a, server: mock, feedback: {tube: b, webhook_file: webhook, secret_file: secret}}]": "b https://me:pw@example.com/file from-a-file-0123456789",
		"apps: [{topic: a, server: mock, feedback: {webhook: none}}]":                                       "  ",

		"defaults: {feedback: {webhook: 'http://d', secret: '${S}'}}\napps: [{topic: a, server: mock}]":                                  "a.feedback http://d " + signing,
		"defaults: {feedback: {webhook: 'http://d', secret: '${S}'}}\napps: [{topic: a, server: mock, feedback: {webhook: none}}]":       "  ",
		"defaults: {feedback: {webhook: 'http://d', secret: '${S}'}}\napps: [{topic: a, server: mock, feedback: {tube: b}}]":             "b http://d " + signing,
		"defaults: {feedback: {webhook: 'http://d', secret: '${S}'}}\napps: [{topic: a, server: mock, feedback: {secret_file: secret}}]": "a.feedback http://d from-a-file-0123456789",
		"defaults: {feedback: {secret: '${S}'}}\napps: [{topic: a, server: mock}]":                                                       "  ",
	} {
		if got := feedbackOf(t, text, o); got[0] != want {
			t.Errorf("%s:\ngot  %q\nwant %q", text, got[0], want)
		}
	}
}

// A secret is its own bytes or, after whsec_, those that it stands for; while one is
// replaced, both sign.
func TestFeedbackKeys(t *testing.T) {
	t.Parallel()
	const encoded = "whsec_aHVudGVyMi1zaWduaW5nLTAxMjM=" // hunter2-signing-0123
	for secrets, want := range map[string]string{
		"secret: " + signing:                              signing,
		"secret: " + encoded:                              "hunter2-signing-0123",
		"secret: " + encoded + ", old_secret: " + signing: "hunter2-signing-0123 " + signing,
	} {
		f := mustParse(t, "apps: [{topic: a, server: mock, feedback: {webhook: 'http://localhost', "+secrets+"}}]", Options{}).Apps[0].Feedback
		if got := string(bytes.Join(f.Keys(), []byte(" "))); got != want {
			t.Errorf("%s: %q, want %q", secrets, got, want)
		}
	}
}

// One set of defaults serves many apps, each with a tube of its own; without a
// webhook they may share one.
func TestFeedbackOfManyApps(t *testing.T) {
	t.Parallel()
	apps := "\napps: [{topic: a, server: mock}, {topic: b, server: mock}]"
	got := feedbackOf(t, "defaults: {feedback: {webhook: 'http://localhost', secret: "+signing+"}}"+apps, Options{})
	if want := "a.feedback http://localhost " + signing; got[0] != want || !strings.HasPrefix(got[1], "b.feedback ") {
		t.Errorf("webhook: %q", got)
	}
	if got := feedbackOf(t, "defaults: {feedback: {tube: records}}"+apps, Options{}); got[0] != "records  " || got[1] != "records  " {
		t.Errorf("tube: %q", got)
	}
	_, err := Parse("test.yaml", []byte("defaults: {feedback: {tube: records, webhook: 'http://localhost', secret: "+signing+"}}"+apps), Options{})
	if err == nil || !strings.HasPrefix(err.Error(), `test.yaml:1: defaults.feedback.tube "records": also the feedback tube of apps[0] (line 2): a webhook would take`) {
		t.Errorf("both: %v", err)
	}
}

// A program that only puts jobs may not read secrets.
func TestFeedbackWithoutCredentials(t *testing.T) {
	t.Parallel()
	got := feedbackOf(t, "apps: [{topic: a, server: mock, feedback: {tube: b, webhook_file: missing, secret_file: missing}}]",
		Options{Dir: t.TempDir(), WithoutCredentials: true})
	if got[0] != "b  " {
		t.Errorf("%q", got)
	}
}

func TestFeedbackWarnings(t *testing.T) {
	t.Parallel()
	for webhook, warned := range map[string]bool{
		"https://example.com": false, "http://127.0.0.1:1/x": false, "http://127.1.2.3": false, "http://[::1]:80": false,
		"http://localhost": false, "http://a.LOCALHOST.": false,
		"http://example.com": true, "http://10.0.0.1": true, "http://localhost.example.com": true, "http://[2001:db8::1]/": true,
	} {
		cfg := mustParse(t, "apps: [{topic: a, server: mock, feedback: {webhook: '"+webhook+"', secret: "+signing+"}}]", Options{})
		if w := cfg.Apps[0].Warnings; (len(w) == 1 && strings.HasPrefix(w[0], "feedback.webhook is http:// to another machine")) != warned || len(w) > 1 {
			t.Errorf("%s: %q", webhook, w)
		}
	}
}

// What a webhook lacks, and a feedback tube that is the jobs', are both told.
func TestFeedbackFaults(t *testing.T) {
	t.Parallel()
	_, err := Parse("x.yaml", []byte("apps: [{topic: a, server: mock, feedback: {webhook: 'https://example.com', tube: a}}]"), Options{})
	want := "x.yaml:1: apps[0].feedback.secret: is missing: a webhook needs it to tell your records from forged ones: give at least 16 random bytes\n" +
		`x.yaml:1: apps[0].feedback.tube "a": also the tube of the app's jobs: its workers would take records for jobs`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// Whatever of its feedback and times changes, an app is another one.
func TestFeedbackInSame(t *testing.T) {
	t.Parallel()
	all := []string{
		"", "ttl: 1h", "ttl: 2h", "expiration: 1h", "feedback: {tube: x}", "feedback: {tube: y}",
		"feedback: {tube: x, webhook: 'http://localhost/1', secret: " + signing + "}",
		"feedback: {tube: x, webhook: 'http://localhost/2', secret: " + signing + "}",
		"feedback: {tube: x, webhook: 'http://localhost/1', secret: " + signing + "2}",
		"feedback: {tube: x, webhook: 'http://localhost/1', secret: " + signing + ", old_secret: " + signing + "2}",
	}
	app := func(keys string) *App {
		return &mustParse(t, "apps: [{topic: a, server: mock, "+keys+"}]", Options{}).Apps[0]
	}
	for _, x := range all {
		for _, y := range all {
			if got := app(x).Same(app(y)); got != (x == y) {
				t.Errorf("%q and %q: same is %v", x, y, got)
			}
		}
	}
}
