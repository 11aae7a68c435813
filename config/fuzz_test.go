package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"propeller/queue"
)

// FuzzParse: whatever the file holds, Parse returns faults that are readable
// and tell no variable, or a configuration that keeps every limit.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, shipped) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("state_dir: .\nwatchdog: 5s\napps: [{topic: a, server: mock, ttl: 1s, expiration: 24h, feedback: {webhook: \"https://a:b@c/d?e\", secret: 0123456789abcdef}}, {topic: b, server: mock, feedback: {tube: c}}]"))
	f.Add([]byte("queue: [\"beanstalk://${A}\"]\napps: [{topic: \"${A}\", server: \"${A}\", cert: \"${A}\", retry: {min: \"${A}\"}}]"))
	// Not "testdata": files that the fuzzer writes there must not be read.
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte(hidden)) {
			return // what the file says may be quoted
		}
		cfg, err := Parse("fuzz.yaml", data, Options{Dir: dir, Getenv: func(string) (string, bool) { return hidden, true }})
		if err != nil {
			checkFaults(t, cfg, err)
			return
		}
		checkLimits(t, cfg)
	})
}

func checkFaults(t *testing.T, cfg *Config, err error) {
	faults, ok := err.(Faults)
	if !ok || len(faults) == 0 || cfg != nil {
		t.Fatalf("Parse: %v, %#v", cfg, err)
	}
	if hiddenIn(err.Error()) {
		t.Errorf("tells a variable: %v", err)
	}
	line := 0
	for _, fault := range faults {
		if fault.Line < line || fault.Msg == "" || strings.ContainsAny(fault.Error(), "\n\r\x00\x1b") {
			t.Errorf("after line %d: %q", line, fault.Error())
		}
		line = fault.Line
	}
}

func checkLimits(t *testing.T, cfg *Config) {
	if len(cfg.Queue.Servers) > 32 || (len(cfg.Queue.Servers) == 0) == (cfg.Queue.Dir == "") || len(cfg.Apps) < 1 {
		t.Errorf("queue %s, %d apps", cfg.Queue, len(cfg.Apps))
	}
	checkFields(t, configFields, cfg)
	topics, tubes := map[string]bool{}, map[string]bool{}
	for i := range cfg.Apps {
		a := &cfg.Apps[i]
		if topics[a.Topic] || tubes[a.Tube] || queue.CheckTube(a.Topic) != nil || queue.CheckTube(a.Tube) != nil {
			t.Errorf("topic %q, tube %q", a.Topic, a.Tube)
		}
		topics[a.Topic], tubes[a.Tube] = true, true
		checkFeedbackLimits(t, a)
		if a.Mock() != (a.Addr == "") || !a.Mock() && a.Certificate == nil {
			t.Errorf("server %q, addr %q, certificate %v", a.Server, a.Addr, a.Certificate)
		}
		checkFields(t, appFields, a)
		if a.Retry.Min > a.Retry.Max || a.Retry.Min > a.Retry.GiveUpAfter {
			t.Errorf("retry %+v", a.Retry)
		}
		if !a.Same(a) {
			t.Error("an app is not the same as itself")
		}
	}
	for _, a := range cfg.Apps {
		if tubes[a.Feedback.Tube] {
			t.Errorf("records and jobs on tube %q", a.Feedback.Tube)
		}
	}
}

// checkFields checks what its tags say of each field, but for those that were not given.
func checkFields(t *testing.T, fields []field, in any) {
	for _, f := range fields {
		switch v := f.value(in).(type) {
		case int, time.Duration:
			text := fmt.Sprint(v)
			if given := text != "0" && text != "0s"; given && f.set(in, text) != nil || !given && f.tag.Get("default") != "" {
				t.Errorf("%s is %s", f.key, text)
			}
		case string:
			if words := strings.Fields(f.tag.Get("oneof")); len(words) > 0 && !slices.Contains(words, v) {
				t.Errorf("%s is %q", f.key, v)
			}
		}
	}
}

func checkFeedbackLimits(t *testing.T, a *App) {
	f := a.Feedback
	if f.Tube != "" && queue.CheckTube(f.Tube) != nil {
		t.Errorf("feedback tube %q", f.Tube)
	}
	keys := f.Keys()
	if f.Webhook.IsZero() != (len(keys) == 0) || slices.ContainsFunc(keys, func(k []byte) bool { return len(k) < minWebhookSecret }) {
		t.Errorf("webhook %v with secrets %q", f.Webhook, keys)
	}
	if u := f.Webhook.URL(); (u == nil) != f.Webhook.IsZero() || u != nil && (u.Hostname() == "" || f.Tube == "" || webhookFault(u) != "") {
		t.Errorf("webhook %v, tube %q", f.Webhook, f.Tube)
	}
}

// FuzzSecret: a password under its key, or in a proxy's URL, never shows in the faults of the file,
// with quotes or without.
func FuzzSecret(f *testing.F) {
	for _, p := range []string{"", "*", "!", "&a ", "${X}", "%", "@", "`", "!!int ", "!!binary ", "{", "[", "- ", "? ", ": ", "# ", "\"", "'", "|\n  ", "${"} {
		f.Add(p)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, prefix string) {
		password := prefix + hidden
		quoted, err := yaml.Marshal(map[string]string{"cert_password": password, "proxy": password, "feedback.secret": password})
		if err != nil {
			return // not a YAML string
		}
		o := Options{Dir: dir, Getenv: env(nil)}
		_, err = Parse("fuzz.yaml", append([]byte("apps: []\ndefaults:\n  "), strings.ReplaceAll(string(quoted), "\n", "\n  ")...), o)
		if err == nil || hiddenIn(err.Error()) {
			t.Errorf("quoted: %v", err)
		}
		if strings.ContainsAny(prefix, "\n\r\u0085\u2028\u2029,:?{}[]") {
			return // that starts another key
		}
		for _, key := range []string{"cert_password: ", "proxy: ", "proxy: http://me:", "proxy: http://me:x@", "feedback: {secret: ", "feedback: {webhook: https://example.com/", "feedback:\n    webhook: "} {
			_, err = Parse("fuzz.yaml", []byte("apps: []\ndefaults:\n  "+key+password+"\n"), o)
			if err == nil || hiddenIn(err.Error()) {
				t.Errorf("plain: %s%v", key, err)
			}
		}
	})
}
