package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestQueueURLs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "n a&ts.creds", []byte("x"))
	write(t, dir, "ca.pem", made{}.make(t).certPEM())
	for text, want := range map[string]string{
		"beanstalk://127.0.0.1":        "beanstalk://127.0.0.1:11300",
		"BEANSTALK://Queue.example:1/": "beanstalk://Queue.example:1",
		"beanstalk://[::1]":            "beanstalk://[::1]:11300",
		"beanstalk://[fe80::1%25eth0]": "beanstalk://[fe80::1%25eth0]:11300",

		"embedded:///var/lib/propeller/":                     "embedded:///var/lib/propeller",
		"embedded:///var/../lib":                             "embedded:///lib",
		"embedded://./data/queue":                            "embedded://" + dir + "/data/queue",
		"embedded://./a/../data":                             "embedded://" + dir + "/data",
		"embedded://../data":                                 "embedded://" + filepath.Dir(dir) + "/data",
		"embedded://.":                                       "embedded://" + dir,
		"embedded://./a%20b%3f":                              "embedded://" + dir + "/a%20b%3F",
		"embedded:///a%20b%25":                               "embedded:///a%20b%25",
		"embedded:///q?fsync=always":                         "embedded:///q?fsync=always",
		"embedded:///q?":                                     "embedded:///q",
		"embedded:///q?listen=127.0.0.1%3A4222&fsync=always": "embedded:///q?fsync=always&listen=127.0.0.1:4222",
		"embedded:///q?listen=[::1]:1":                       "embedded:///q?listen=%5B::1%5D:1",
		"embedded:///q?listen=LocalHost:4222":                "embedded:///q?listen=localhost:4222",

		"nats://a":                        "nats://a:4222",
		"nats://a:4222/":                  "nats://a:4222",
		"nats://a,b:1,[::1]:2":            "nats://a:4222,b:1,[::1]:2",
		"nats://a, b":                     "nats://a:4222,b:4222",
		"tls://me:pw@a:4222,b?replicas=3": "tls://me:pw@a:4222,b:4222?replicas=3",
		"nats://token@a":                  "nats://token@a:4222",
		"nats://m%40e:p%2Fw%3A%2C@a":      "nats://m%40e:p%2Fw%3A%2C@a:4222",
		"tls://a?replicas=1&ca=ca.pem":    "tls://a:4222?ca=" + dir + "/ca.pem&replicas=1",
		"nats://a?replicas=1":             "nats://a:4222?replicas=1",
		"nats://a?creds=n%20a%26ts.creds": "nats://a:4222?creds=" + dir + "/n+a%26ts.creds",
		"nats://a/?replicas=5&creds=" + dir + "/n%20a%26ts.creds": "nats://a:4222?creds=" + dir + "/n+a%26ts.creds&replicas=5",
	} {
		got, err := ParseQueue(text, Options{Dir: dir})
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s:\ngot  %q, %v\nwant %q", text, got, err, want)
			continue
		}
		again, err := ParseQueue(want, Options{Dir: dir})
		if err != nil || again[0] != want {
			t.Errorf("%s is not its own form: %q, %v", want, again, err)
		}
		cfg := mustParse(t, "queue: '"+text+"'\napps: [{topic: a, server: mock}]", Options{Dir: dir})
		if !reflect.DeepEqual(cfg.Queue, got) {
			t.Errorf("%s: %q in a file, %q as a flag", text, cfg.Queue, got)
		}
	}
}

// Commas stand between URLs and inside one.
func TestQueueFlag(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"beanstalk://a, beanstalk://b:1": {"beanstalk://a:11300", "beanstalk://b:1"},
		"nats://a,b:1, c":                {"nats://a:4222,b:1,c:4222"},
	} {
		if got, err := ParseQueue(text, Options{}); err != nil || !reflect.DeepEqual(got, Queues(want)) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                             "--queue: must start with beanstalk://",
		"beanstalk://a,":               "--queue: must start with beanstalk://",
		"beanstalk://a,b":              `--queue "b": must start with beanstalk://`,
		"nats://a,nats://b":            "--queue: is not alone: a list is for several beanstalkd servers",
		"beanstalk://a,embedded:///q":  `--queue "embedded:///q": is not alone`,
		"nats://me:" + hidden + ",b":   "--queue: has a server that is not host:port",
		"nats://me:" + hidden + "@a:x": "--queue: has a server that is not host:port",
		"tls://" + hidden + "/":        "",
		strings.Repeat("beanstalk://a,", maxQueues) + "beanstalk://a": "--queue: more than 32 servers",
		"nats://a" + strings.Repeat(",a", maxQueues):                  "--queue: has more than 32 servers",
	} {
		_, err := ParseQueue(text, Options{})
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) || hiddenIn(err.Error()) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// The password of a queue is in none of the ways in which a configuration can
// be printed.
func TestQueuesNeverPrintPasswords(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, "queue: 'nats://me:"+hidden+"@a,b?replicas=1'\napps: [{topic: a, server: mock}]", Options{})
	if !strings.Contains(cfg.Queue[0], hidden) {
		t.Fatalf("got %s", cfg.Queue[0])
	}
	const want = "nats://[secret]@a:4222,b:4222?replicas=1"
	if got := cfg.Queue.Redacted(); len(got) != 1 || got[0] != want {
		t.Errorf("Redacted: %q", got)
	}
	if got := fmt.Sprintf("%s %v %q", cfg.Queue, cfg.Queue, cfg.Queue); got != "["+want+"] ["+want+`] ["`+want+`"]` {
		t.Errorf("fmt: %s", got)
	}
	for name, v := range map[string]any{"queue": cfg.Queue, "pointer": &cfg.Queue, "config": *cfg, "pointer to config": cfg} {
		// Not %p: fmt asks no method of what %p does not fit.
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "% X", "%d", "%c", "%10v"} {
			if out := fmt.Sprintf(verb, v); hiddenIn(out) {
				t.Errorf("%s: %s shows %s", name, verb, out)
			}
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v)
		j, jsonErr := json.Marshal(v)
		y, yamlErr := yaml.Marshal(v)
		if out := log.String() + string(j) + string(y); jsonErr != nil || yamlErr != nil || hiddenIn(out) || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %v, %s", name, jsonErr, yamlErr, out)
		}
	}
	for text, want := range map[string]string{
		"embedded:///srv/a@b":        "embedded:///srv/a@b",
		"beanstalk://127.0.0.1:1":    "beanstalk://127.0.0.1:1",
		"nats://token@a:4222":        "nats://[secret]@a:4222",
		"nats://me:p?w/@" + "a:4222": "nats://[secret]@a:4222", // not in our form, and safe all the same
	} {
		if got := redactQueue(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// FuzzQueueURL: whatever the text, the form it is brought into is its own form.
func FuzzQueueURL(f *testing.F) {
	for _, text := range []string{
		"beanstalk://[::1]:1", "embedded://./a%20b?fsync=always&listen=127.0.0.1:1", "embedded:///a@b/../c",
		"nats://me:p%40w@a,b:1?replicas=3", "tls://token@[::1]", "nats", "embedded", "nats:", "embedded://%", "nats://@", "nats://a%00b",
	} {
		f.Add(text)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		first, err := ParseQueue(text, Options{Dir: dir})
		if err != nil {
			if len(err.(Faults)) == 0 || first != nil {
				t.Fatalf("%v, %#v", first, err)
			}
			return
		}
		again, err := ParseQueue(strings.Join(first, ","), Options{Dir: "/elsewhere"})
		if err != nil || !reflect.DeepEqual([]string(first), []string(again)) {
			t.Errorf("%q: %q, then %q, %v", text, []string(first), []string(again), err)
		}
	})
}
