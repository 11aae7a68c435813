package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const hidden = "hunter2-hunter2"

// hiddenIn reports whether s shows the secret, plainly or in one of the ways
// that fmt writes strings and bytes.
func hiddenIn(s string) bool {
	for _, form := range []string{"%s", "%x", "%X", "% x", "%v"} {
		if strings.Contains(s, fmt.Sprintf(form, hidden)) {
			return true
		}
	}
	return strings.Contains(s, strings.Trim(fmt.Sprint([]byte(hidden)), "[]"))
}

func TestSecretNeverPrints(t *testing.T) {
	t.Parallel()
	type exported struct{ P Secret }
	type unexported struct{ p Secret }
	s := NewSecret(hidden)
	values := map[string]any{
		"value": s, "pointer": &s, "exported": exported{s}, "unexported": unexported{s}, "pointer to struct": &unexported{s},
		"slice": []Secret{s}, "map": map[string]Secret{"p": s}, "key": map[Secret]int{s: 1}, "array": [1]Secret{s}, "any": []any{s},
		"app": App{Topic: "com.example.app", CertPassword: s}, "config": &Config{Apps: []App{{CertPassword: s}}},
		"error": fmt.Errorf("bad password %v %q %s", s, s, s),
	}
	for name, v := range values {
		for _, verb := range strings.Split("%v %+v %#v %s %q %x %X %d %b %o %c %U %t %e %g %T %p %10v %-20.3s %+q %#q %#x % x %z", " %") {
			verb = "%" + strings.TrimPrefix(verb, "%")
			if out := fmt.Sprintf(verb, v); hiddenIn(out) {
				t.Errorf("%s: %s shows %s", name, verb, out)
			}
		}
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "v", v, slog.Group("g", "v", v))
		encoded := []string{text.String(), js.String()}
		if name != "key" {
			y, err := yaml.Marshal(v)
			if err != nil {
				t.Errorf("%s: yaml: %v", name, err)
			}
			encoded = append(encoded, string(y))
		}
		j, _ := json.Marshal(v)
		x, _ := xml.Marshal(v)
		for _, out := range append(encoded, string(j), string(x), fmt.Sprint(v), fmt.Sprintln(v), errors.Join(fmt.Errorf("%v", v)).Error()) {
			if hiddenIn(out) {
				t.Errorf("%s: shows %s", name, out)
			}
		}
	}
	if !hiddenIn(fmt.Sprintf("%x", hidden)) || !hiddenIn(hidden) {
		t.Error("the test does not recognise the secret")
	}
}

func TestSecretText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s          Secret
		reveal     string
		v, q, json string
	}{
		{Secret{}, "", "", `""`, `""`},
		{NewSecret(""), "", "", `""`, `""`},
		{NewSecret(hidden), hidden, "[secret]", `"[secret]"`, `"[secret]"`},
	} {
		if got := c.s.Reveal(); got != c.reveal {
			t.Errorf("Reveal: %q, want %q", got, c.reveal)
		}
		if got := fmt.Sprintf("%v", c.s); got != c.v {
			t.Errorf("%%v: %q, want %q", got, c.v)
		}
		if got := fmt.Sprintf("%q", c.s); got != c.q {
			t.Errorf("%%q: %q, want %q", got, c.q)
		}
		if got, err := json.Marshal(c.s); err != nil || string(got) != c.json {
			t.Errorf("JSON: %s, %v, want %s", got, err, c.json)
		}
		if c.s.IsZero() != (c.reveal == "") {
			t.Errorf("IsZero: %v", c.s.IsZero())
		}
	}
}
