package config

import (
	"path/filepath"
	"testing"
)

func TestStateDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	systemd := map[string]string{stateVariable: "/var/lib/propeller:/var/lib/other"}
	for _, c := range []struct {
		keys string
		env  map[string]string
		want string
	}{
		{"", nil, ""},
		{"", systemd, "/var/lib/propeller"},
		{"", map[string]string{stateVariable: ""}, ""},
		{"", map[string]string{stateVariable: "relative"}, ""},
		{"state_dir: .", systemd, dir},
		{"state_dir: not/there/yet", nil, filepath.Join(dir, "not/there/yet")},
		{"state_dir: /abs", nil, "/abs"},
		{"queue: embedded://./q%20?fsync=always", nil, filepath.Join(dir, "q ")},
		{"queue: embedded://./q", systemd, "/var/lib/propeller"},
		{"queue: embedded://./q\nstate_dir: s", nil, filepath.Join(dir, "s")},
		{"queue: 'nats://a,b:1'", nil, ""},
		{"state_dir: ${D}", map[string]string{"D": "/expanded"}, "/expanded"},
	} {
		for _, bare := range []bool{false, true} {
			o := Options{Dir: dir, Getenv: env(c.env), WithoutCredentials: bare}
			if got := mustParse(t, c.keys+"\napps: [{topic: a, server: mock}]", o).StateDir; got != c.want {
				t.Errorf("%q with %v: %q, want %q", c.keys, c.env, got, c.want)
			}
		}
	}
	cfg, err := Single(map[string]string{"topic": "a", "server": "mock"}, Options{Dir: dir, Getenv: env(systemd)})
	if err != nil || cfg.StateDir != "/var/lib/propeller" {
		t.Errorf("flags: %+v, %v", cfg, err)
	}
}
