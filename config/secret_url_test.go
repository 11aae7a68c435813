package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestSecretURLNeverPrints(t *testing.T) {
	t.Parallel()
	var a App
	if err := setProxy(&a.Proxy, "http://me:"+hidden+"@proxy:3128"); err != nil {
		t.Fatal(err)
	}
	for _, webhook := range []string{"https://me:" + hidden + "@h/", "https://h/" + hidden, "https://h?k=" + hidden} {
		if err := setWebhook(&a.Feedback.Webhook, webhook); err != nil {
			t.Fatal(err)
		}
		a.Feedback.Secret, a.Feedback.OldSecret = NewSecret(hidden), NewSecret(hidden)
		type unexported struct{ p SecretURL }
		for name, v := range map[string]any{
			"proxy": a.Proxy, "webhook": a.Feedback.Webhook, "pointer": &a.Proxy, "app": a, "config": &Config{Apps: []App{a}},
			"unexported": unexported{a.Proxy}, "feedback": a.Feedback,
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%c", "%p", "%10v"} {
				if out := fmt.Sprintf(verb, v); hiddenIn(out) {
					t.Errorf("%s: %s shows %s", name, verb, out)
				}
			}
			var log strings.Builder
			slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
			slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v)
			j, _ := json.Marshal(v)
			y, _ := yaml.Marshal(v)
			if out := log.String() + string(j) + string(y); hiddenIn(out) {
				t.Errorf("%s: %s", name, out)
			}
		}
	}
}

func TestSecretURLText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"none":                           "",
		"http://me:pw@proxy:3128":        "http://[secret]@proxy:3128",
		"https://me@h/":                  "https://[secret]@h",
		"https://h/services/T0/B0/x":     "https://h/…",
		"https://[2001:db8::1]:8443?a=b": "https://[2001:db8::1]:8443/…",
	} {
		var a App
		if err := setWebhook(&a.Feedback.Webhook, text); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(a.Feedback.Webhook); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		if got := fmt.Sprintf("%q", a.Feedback.Webhook); got != `"`+want+`"` {
			t.Errorf("%s: %s", text, got)
		}
		if got := a.Feedback.Webhook.Reveal(); got != text && text != "none" {
			t.Errorf("%s: Reveal %q", text, got)
		}
	}
}
