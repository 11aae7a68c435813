package main

import (
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/config"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	o, err := parseOptions(nil, env())
	if err != nil || o.time != time.Minute || o.seed != 1 {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	o, err = parseOptions([]string{"-seed", "9"}, env("CHAOS_TIME", "30m", "CHAOS_SEED", "7"))
	if err != nil || o.time != 30*time.Minute || o.seed != 9 {
		t.Errorf("environment and flag: %+v, %v", o, err)
	}
	o, err = parseOptions([]string{"-rate", "50"}, env("CHAOS_APPS", "300"))
	if err != nil || o.apps != 300 {
		t.Errorf("300 apps: %+v, %v", o, err)
	}
	if o, err = parseOptions([]string{"-apps", "5"}, env()); err != nil || o.apps != 5 {
		t.Errorf("5 apps: %+v, %v", o, err)
	}
	if _, err := parseOptions(nil, env("CHAOS_APPS", "many")); err == nil {
		t.Error("CHAOS_APPS=many: no error")
	}
	for _, wrong := range []struct {
		args []string
		env  string
	}{{nil, "soon"}, {[]string{"-time", "1ms"}, ""}, {[]string{"-rate", "0"}, ""}, {[]string{"more"}, ""}, {[]string{"-drain", "2h"}, ""}, {[]string{"-apps", "3"}, ""}, {[]string{"-apps", "100000"}, ""}} {
		if _, err := parseOptions(wrong.args, env("CHAOS_TIME", wrong.env)); err == nil {
			t.Errorf("%+v: no error", wrong)
		}
	}
}

// Every configuration that the hand makes is one that the daemon takes.
func TestSettingsAreValid(t *testing.T) {
	t.Parallel()
	at := &site{dir: t.TempDir(), queueURL: "beanstalk://127.0.0.1:11300", apnsAddr: "127.0.0.1:2197", wrongAddr: "127.0.0.1:2198", hookAddr: "127.0.0.1:8080", issuer: apnstest.NewServer(apnstest.Options{})}
	defer at.issuer.Close()
	if err := at.serverCertificate(); err != nil {
		t.Fatal(err)
	}
	for _, a := range apps() {
		if err := at.renew(a.topic); err != nil {
			t.Fatal(err)
		}
	}
	rng := newRNG(1, 1)
	s := usual()
	removed := 0
	for i := range 200 {
		var what string
		switch i % 10 {
		case 8:
			s, what = s.misled(rng)
		case 9:
			s, what = s.righted(), "righted"
		default:
			s, what = s.changed(rng)
		}
		cfg, err := config.Parse("x.yaml", s.yaml(at), config.Options{Dir: at.dir})
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, s.yaml(at))
		}
		if want := s.serving(); len(cfg.Apps) != want {
			t.Fatalf("%s: %d apps, want %d", what, len(cfg.Apps), want)
		}
		if strings.HasPrefix(what, "removes") {
			removed++
		}
	}
	if removed == 0 {
		t.Error("no app was ever removed")
	}
}

// Every answer of every profile can be built.
func TestProfiles(t *testing.T) {
	t.Parallel()
	a := newAnswers(1, "usual", nil)
	for name, rates := range profiles {
		sum := 0
		for _, r := range rates {
			sum += r.perMille
			a.build(r.name, &apnstest.Request{})
		}
		if sum > 1000 {
			t.Errorf("profile %s: %d of 1000", name, sum)
		}
	}
}
