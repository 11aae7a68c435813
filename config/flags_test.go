package config

import (
	"reflect"
	"strings"
	"testing"

	"propeller/apnsconn"
)

// Flags mean what the same keys in a file mean.
func TestSingle(t *testing.T) {
	t.Parallel()
	got, err := Single(map[string]string{
		"queue": "beanstalk://127.0.0.1, beanstalk://127.0.0.1:11301", "log-pushes": "none",
		"topic": "com.example.app", "tube": "jobs", "server": "mock", "workers": "2",
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := mustParse(t, `
queue: [beanstalk://127.0.0.1, beanstalk://127.0.0.1:11301]
log: {pushes: none}
apps:
  - {topic: com.example.app, tube: jobs, server: mock, workers: 2}
`, Options{})
	want.File = ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSingleDefaults(t *testing.T) {
	t.Parallel()
	got, err := Single(map[string]string{"topic": "com.example.app", "server": "mock"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Apps[0].Name, want.Apps[0].Topic, want.Apps[0].Tube, want.Apps[0].Server = "com.example.app", "com.example.app", "com.example.app", "mock"
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("got  %+v\nwant %+v", got, &want)
	}
}

func TestSingleCredential(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	write(t, dir, "app.p12", m.p12(t, "${X}"))
	write(t, dir, "pw", []byte("${X}\n"))
	for _, password := range []string{"cert-password", "cert-password-file"} {
		value := map[string]string{"cert-password": "${X}", "cert-password-file": "pw"}[password]
		cfg, err := Single(map[string]string{"topic": "com.example.app", "cert": "app.p12", password: value}, Options{Dir: dir})
		if err != nil || cfg.Apps[0].Certificate == nil {
			t.Errorf("%s: %+v, %v", password, cfg, err)
		}
	}
}

func TestSingleFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags map[string]string
		want  []string
	}{
		{nil, []string{
			"--topic: is missing: give the app's bundle id",
			"--cert: no credential: give the .pem or .p12 of the app's APNs certificate, or a .p8 key by --key, --key-id and --team-id, or --server mock to try without Apple",
		}},
		{map[string]string{"topic": "com.example.app", "server": "mock", "workers": "0", "colour": "red", "cert-password": hidden, "queue": "redis://a,", "retry-min": "20m", "log-pushes": "some"}, []string{
			`--queue "redis://a": must start with beanstalk://, embedded://, nats:// or tls://, like beanstalk://127.0.0.1:11300`,
			`--queue: must start with beanstalk://, embedded://, nats:// or tls://, like beanstalk://127.0.0.1:11300`,
			`--log-pushes "some": must be failures, all or none`,
			`--workers "0": must be a whole number from 1 to 100: each is a connection to APNs and one to the queue`,
			`--cert-password: does nothing without --cert: give that, or remove this`,
			`--colour: unknown flag`,
			`--retry-min: unknown flag`,
		}},
		{map[string]string{"topic": "com.example.app", "cert": "missing.pem"}, []string{`--cert "missing.pem": no such file`}},
	} {
		_, err := Single(c.flags, Options{Dir: t.TempDir()})
		if err == nil || err.Error() != strings.Join(c.want, "\n") {
			t.Errorf("%v:\ngot  %v\nwant %s", c.flags, err, strings.Join(c.want, "\n"))
		}
	}
}

// The names of servers are taken in any case, by the flag, by the file and by its
// defaults: they mean, and read, what they are in small letters.
func TestServerNamesInAnyCase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app"}.make(t)
	write(t, dir, "app.pem", m.certPEM(), m.keyPEM(t))
	for text, want := range map[string]struct {
		name string
		env  apnsconn.Environment
	}{
		"Sandbox": {"sandbox", apnsconn.Sandbox}, "SANDBOX": {"sandbox", apnsconn.Sandbox},
		"Production": {"production", apnsconn.Production}, "Mock": {ServerMock, apnsconn.Other},
		"HTTPS://API.Push.Apple.com": {"HTTPS://API.Push.Apple.com", apnsconn.Production},
	} {
		flags, err := Single(map[string]string{"topic": "com.example.app", "cert": "app.pem", "server": text}, Options{Dir: dir})
		if err != nil {
			t.Errorf("--server=%s: %v", text, err)
			continue
		}
		apps := append(flags.Apps, mustParse(t, "apps: [{topic: com.example.app, cert: app.pem, server: '"+text+"'}]", Options{Dir: dir}).Apps...)
		apps = append(apps, mustParse(t, "defaults: {server: '"+text+"'}\napps: [{topic: com.example.app, cert: app.pem}]", Options{Dir: dir}).Apps...)
		for _, a := range apps {
			if a.Server != want.name || a.Env != want.env || a.Mock() != (want.name == ServerMock) {
				t.Errorf("%s: server %q, %s", text, a.Server, a.Env)
			}
		}
	}
	if _, err := Single(map[string]string{"topic": "a", "server": "Sandbox2"}, Options{}); err == nil || !strings.Contains(err.Error(), `"Sandbox2"`) {
		t.Errorf("%v", err)
	}
}
