package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"propeller/queue/queueurl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env makes an Options.Getenv of pairs.
func env(pairs map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := pairs[name]
		return v, ok
	}
}

// mustParse parses text that must have no fault.
func mustParse(t *testing.T, text string, o Options) *Config {
	t.Helper()
	cfg, err := Parse("test.yaml", []byte(text), o)
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, text)
	}
	return cfg
}

func TestEveryKey(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, `
queue: [beanstalk://127.0.0.1, "beanstalk://[::1]:11301/", beanstalk://queue.example:11302]
log: {level: debug, format: json, pushes: all}
shutdown_timeout: 1m
watchdog: 90s
state_dir: state
http:
  listen: unix:web/http.sock
  auth_token: `+hidden+`
  keys: [{name: ci, token: "${KEY}", role: send, topics: [com.example.app], rate: 7}, {name: lane, token: hunter2-4567, role: read, apps: [example-prod]}]
  trusted_proxies: [10.1.2.3/8, "::ffff:192.0.2.1", "2001:db8::/32"]
  base_path: /a/b
  pprof: true
metrics: {unused_apps: false}
apps:
  - name: example-prod
    topic: com.example.app
    tube: jobs
    server: mock
    workers: 4
    in_flight: 1000
    max_rate: 2000
    push_timeout: 1500ms
    retry: {min: 2s, max: 1m, give_up_after: 1h}
    expiration: 720h
    ttl: 1s
    extra_keys: ignore
    feedback: {tube: records, webhook: "https://me:pw@example.com:8443/hook?a=b", secret: `+hidden+`-hunter2}
`, Options{Dir: "dir", Getenv: env(map[string]string{"KEY": "hunter2-0123"})})
	want := &Config{
		File:            "test.yaml",
		Queue:           queueurl.URL{Scheme: "beanstalk", Servers: []string{"127.0.0.1:11300", "[::1]:11301", "queue.example:11302"}},
		Log:             Log{Level: slog.LevelDebug, Format: FormatJSON, Pushes: PushesAll},
		ShutdownTimeout: time.Minute,
		Watchdog:        90 * time.Second,
		StateDir:        filepath.Join("dir", "state"),
		HTTP: HTTP{
			Listen: "unix:dir/web/http.sock", AuthToken: NewSecret(hidden), BasePath: "/a/b", PProf: true,
			Keys:           []HTTPKey{{Name: "ci", Token: NewSecret("hunter2-0123"), Role: RoleSend, Topics: []string{"com.example.app"}, Rate: 7}, {Name: "lane", Token: NewSecret("hunter2-4567"), Role: RoleRead, Apps: []string{"example-prod"}}},
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")},
		},
		Apps: []App{{
			Name: "example-prod", Topic: "com.example.app", Tube: "jobs", Server: "mock", Workers: 4, InFlight: 1000, MaxRate: 2000,
			PushTimeout: 1500 * time.Millisecond,
			Retry:       Retry{Min: 2 * time.Second, Max: time.Minute, GiveUpAfter: time.Hour},
			Expiration:  30 * 24 * time.Hour, TTL: time.Second, ExtraKeys: ExtraIgnore,
			Feedback: Feedback{
				Tube: "records", Secret: NewSecret(hidden + "-hunter2"),
				Webhook: newSecretURL(&url.URL{Scheme: "https", User: url.UserPassword("me", "pw"), Host: "example.com:8443", Path: "/hook", RawQuery: "a=b"}),
			},
		}},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	if !cfg.Apps[0].Mock() {
		t.Error("Mock: false")
	}
	base := Default()
	// These need files, or do not go with the values above, and have tests of their own.
	apart := []string{"http.tls_cert", "http.tls_key", "http.hsts", "ca_file", "proxy", "feedback.old_secret"}
	check := func(fields []field, got, base any) {
		for _, f := range fields {
			if !f.ofCredential() && !slices.Contains(apart, f.key) && reflect.DeepEqual(f.at(got), f.at(base)) {
				t.Errorf("%s has its default: give it another value above", f.key)
			}
		}
	}
	check(configFields, cfg, &base)
	check(appFields, &cfg.Apps[0], &base.Apps[0])
}

func TestDefaultsOfAnEmptyApp(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, "apps: [{topic: com.example.app, server: mock}]", Options{})
	want := Default()
	want.File = "test.yaml"
	want.Apps[0].Name, want.Apps[0].Topic, want.Apps[0].Tube, want.Apps[0].Server = "com.example.app", "com.example.app", "com.example.app", "mock"
	if !reflect.DeepEqual(cfg, &want) {
		t.Errorf("got  %+v\nwant %+v", cfg, &want)
	}
}

// Numbers, flags and the like are strings where a string is wanted, as written.
func TestPlainScalarsAreText(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, "apps: [{topic: 0123, tube: true, server: mock, workers: \"7\"}]", Options{})
	if a := cfg.Apps[0]; a.Topic != "0123" || a.Tube != "true" || a.Workers != 7 {
		t.Errorf("got %+v", a)
	}
}

func TestDefaultsMerge(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, `
defaults:
  server: mock
  workers: 3
  retry: {min: 5s, max: 2m}
apps:
  - topic: com.example.one
  - topic: com.example.two
    workers: 1
    retry: {max: 3m}
`, Options{})
	one, two := cfg.Apps[0], cfg.Apps[1]
	if one.Workers != 3 || one.Retry != (Retry{5 * time.Second, 2 * time.Minute, 24 * time.Hour}) || !one.Mock() {
		t.Errorf("one: %+v", one)
	}
	if two.Workers != 1 || two.Retry != (Retry{5 * time.Second, 3 * time.Minute, 24 * time.Hour}) || !two.Mock() {
		t.Errorf("two: %+v", two)
	}
}

func TestEnvironmentVariables(t *testing.T) {
	t.Parallel()
	o := Options{Getenv: env(map[string]string{
		"HOST": "10.0.0.1", "APP": "com.example", "N": "7", "NESTED": "${HOST}", "_x1": "a", "LEVEL": "warn",
	})}
	cfg := mustParse(t, `
queue: ["beanstalk://${HOST}:1"]
log: {level: "${LEVEL}"}
apps:
  - {topic: "${APP}.${_x1}", server: mock, workers: "${N}"}
`, o)
	if got := cfg.Queue.String(); got != "beanstalk://10.0.0.1:1" {
		t.Errorf("queue: %q", got)
	}
	if a := cfg.Apps[0]; a.Topic != "com.example.a" || a.Workers != 7 || cfg.Log.Level != slog.LevelWarn {
		t.Errorf("got %+v", cfg)
	}
	for text, want := range map[string]string{
		"":              "",
		"$":             "$",
		"$$ $5 $HOST":   "$$ $5 $HOST",
		"${HOST}":       "10.0.0.1",
		"a${HOST}b${N}": "a10.0.0.1b7",
		"$${HOST}":      "${HOST}",
		"$$${HOST}":     "$${HOST}",
		"${NESTED}":     "${HOST}",
		"$${${N}":       "${7",
	} {
		if got, err := expand(text, o.Getenv); err != nil || got != want {
			t.Errorf("expand(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"${", "${}", "${HOST", "${HO ST}", "${1}", "${UNSET}", "x${HOST}${"} {
		if got, err := expand(text, o.Getenv); err == nil {
			t.Errorf("expand(%q) = %q, want an error", text, got)
		}
	}
}

// A fault quotes the file, never what a variable holds.
func TestFaultsDoNotTellVariables(t *testing.T) {
	t.Parallel()
	_, err := Parse("test.yaml", []byte(`
queue: ["beanstalk://${X}@h", "${X}"]
log: {level: "${X}", format: "${X}", pushes: "${X}"}
shutdown_timeout: ${X}
apps:
  - {topic: "${X} ", tube: "-${X}", server: "${X}", workers: "${X}", push_timeout: "${X}", cert: "${X}", ca_file: "${X}", retry: {min: "${X}"}}
  - {topic: a, server: "https://u:${X}@h:1", cert_key: "${X}", cert_password_file: "${X}"}
`), Options{Getenv: env(map[string]string{"X": hidden})})
	if err == nil || len(err.(Faults)) < 14 {
		t.Fatalf("got %v", err)
	}
	if hiddenIn(err.Error()) {
		t.Errorf("the error tells the variable:\n%v", err)
	}
}

func TestSecretFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for content, want := range map[string]string{
		hidden:               hidden,
		hidden + "\n":        hidden,
		hidden + "\r\n":      hidden,
		hidden + "\n\n":      hidden + "\n",
		" " + hidden + " \n": " " + hidden + " ",
		"${X}\n":             "${X}",
		"":                   "",
	} {
		if err := os.WriteFile(filepath.Join(dir, "pw"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newParser("test.yaml", Options{Dir: dir})
		l := layer{"cert_password_file": {text: "pw", key: "k"}}
		_, got, given, ok := p.read(l, find(appFields, "cert_password"))
		if !ok || !given || got != want {
			t.Errorf("file %q: got %q, %v, %v %v", content, got, given, ok, p.faults)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pw"), make([]byte, maxSecretFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Parse("test.yaml", []byte("apps: [{topic: a, server: mock, cert: pw, cert_password_file: pw}]"), Options{Dir: dir})
	want := `test.yaml:1: apps[0].cert_password_file "pw": is larger than 64 KiB`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Either form of a secret under an app replaces both forms of the defaults.
func TestSecretOverDefaults(t *testing.T) {
	t.Parallel()
	inline, file := layer{"cert_password": {text: "1"}, "workers": {text: "2"}}, layer{"cert_password_file": {text: "3"}}
	for _, c := range []struct {
		own, defaults layer
		want          []string
	}{
		{inline, file, []string{"cert_password", "workers"}},
		{file, inline, []string{"cert_password_file", "workers"}},
		{layer{}, inline, []string{"cert_password", "workers"}},
		{nil, file, []string{"cert_password_file"}},
	} {
		var got []string
		for k := range c.own.over(c.defaults) {
			got = append(got, k)
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v over %v: %v, want %v", c.own, c.defaults, got, c.want)
		}
	}
}

func TestLoadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "propeller.yaml")
	_, err := Load(path, Options{})
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != path+": no such file" {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, []byte("apps: [{topic: a, server: mock}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if cfg, err := Load(path, Options{}); err != nil || cfg.File != path {
		t.Errorf("got %+v, %v", cfg, err)
	}
	if err := os.WriteFile(path, append([]byte("#"), make([]byte, maxFile)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, Options{}); err == nil || err.Error() != path+": is larger than 1024 KiB" {
		t.Errorf("large: %v", err)
	}
	if _, err := Load(dir, Options{}); err == nil || err.Error() != dir+": is a folder" {
		t.Errorf("folder: %v", err)
	}
}

func TestFaultsUnwrap(t *testing.T) {
	t.Parallel()
	_, err := Parse("test.yaml", []byte("apps: [{topic: a, cert: missing.pem, workers: 0}]"), Options{Dir: t.TempDir()})
	var f Fault
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &f) || f.Line != 1 || len(err.(Faults)) != 2 {
		t.Errorf("got %#v", err)
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 2 {
		t.Errorf("%d lines: %v", lines, err)
	}
}

// A file that is something else altogether gives a report that ends.
func TestFaultsAreBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 3 * maxFaults {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	_, err := Parse("test.yaml", []byte(b.String()), Options{})
	faults, _ := err.(Faults)
	if len(faults) != maxFaults || faults[0].Error() != "test.yaml: has too many faults to show all" {
		t.Errorf("%d faults, the first %v", len(faults), faults[0])
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, "shutdown_timeout: 10s\napps: [{topic: a, server: mock}]", Options{})
	if w := cfg.Apps[0].Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "push_timeout 20s is longer than shutdown_timeout 10s") {
		t.Errorf("got %q", w)
	}
	cfg = mustParse(t, "watchdog: 10s\napps: [{topic: a, server: mock}]", Options{})
	if w := cfg.Apps[0].Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "watchdog 10s is shorter than push_timeout 20s: for this app") {
		t.Errorf("got %q", w)
	}
}

// allFields are the keys of every table, those of http.keys with that in front.
func allFields() []field {
	all := slices.Concat(configFields, appFields)
	for _, f := range keyFields {
		f.key = "http.keys." + f.key
		all = append(all, f)
	}
	return all
}

// Every tag means something, and every field with a key has those that its type needs.
func TestTags(t *testing.T) {
	t.Parallel()
	known := []string{"key", "default", "min", "max", "why", "oneof", "as", "path", "secret", "credential", "own", "live", "flag", "usage"}
	tags := regexp.MustCompile(`(\w+):"`)
	for _, f := range allFields() {
		for _, m := range tags.FindAllStringSubmatch(string(f.tag), -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: tag %s", f.key, m[1])
			}
		}
		dst := any(new(App))
		switch {
		case slices.ContainsFunc(configFields, func(c field) bool { return c.key == f.key }):
			dst = new(Config)
		case strings.HasPrefix(f.key, "http.keys."):
			dst = new(HTTPKey)
		}
		var lo, hi, loErr, hiErr = 0.0, 0.0, error(nil), error(nil)
		switch f.at(dst).(type) {
		case *int:
			lo, loErr = strconv.ParseFloat(f.tag.Get("min"), 64)
			hi, hiErr = strconv.ParseFloat(f.tag.Get("max"), 64)
		case *time.Duration:
			var low, high time.Duration
			low, loErr = time.ParseDuration(f.tag.Get("min"))
			high, hiErr = time.ParseDuration(f.tag.Get("max"))
			lo, hi = low.Seconds(), high.Seconds()
		case *Secret, *SecretURL:
			if !f.secret {
				t.Errorf("%s is a secret, and not tagged as one", f.key)
			}
			continue
		default:
			if !f.several && f.tag.Get("as") == "" {
				if err := f.set(dst, strings.Split(f.tag.Get("oneof")+" ", " ")[0]); err != nil {
					t.Errorf("%s: %v", f.key, err)
				}
			}
			continue
		}
		if loErr != nil || hiErr != nil || lo <= 0 || lo >= hi || f.tag.Get("why") == "" {
			t.Errorf("%s: limits %v to %v (%v, %v), because %q", f.key, lo, hi, loErr, hiErr, f.tag.Get("why"))
		}
	}
}
