package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// A URL means the same in a file and as a flag; files are looked for where the file is.
func TestQueueURLs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "n a&ts.creds", []byte("x"))
	write(t, dir, "ca.pem", made{}.make(t).certPEM())
	for text, want := range map[string]string{
		"beanstalk://127.0.0.1":                   "beanstalk://127.0.0.1:11300",
		"embedded://../data?listen=[::1]:1":       "embedded://" + filepath.Dir(dir) + "/data?listen=%5B::1%5D:1",
		"tls://a, b?ca=ca.pem&replicas=1":         "tls://a:4222,b:4222?ca=" + dir + "/ca.pem&replicas=1",
		"nats://a?creds=./n%20a%26ts.creds":       "nats://a:4222?creds=" + dir + "/n+a%26ts.creds",
		"nats://a?creds=" + dir + "/n a&ts.creds": "",
	} {
		got, err := ParseQueue(text, Options{Dir: dir})
		if want == "" {
			if err == nil {
				t.Errorf("%s: %s", text, got)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", text, got, err, want)
			continue
		}
		cfg := mustParse(t, "queue: '"+text+"'\napps: [{topic: a, server: mock}]", Options{Dir: dir})
		if !cfg.Queue.Equal(got) {
			t.Errorf("%s: %q in a file, %q as a flag", text, cfg.Queue, got)
		}
	}
}

// numbered is the text n times, with a number behind it.
func numbered(text string, n int) (all string) {
	for i := range n {
		all += fmt.Sprint(text, i+1)
	}
	return all
}

// Commas stand between URLs and inside one.
func TestQueueFlag(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"beanstalk://a, beanstalk://b:1": "beanstalk://a:11300,beanstalk://b:1",
		"nats://a,b:1, c":                "nats://a:4222,b:1,c:4222",
	} {
		if got, err := ParseQueue(text, Options{}); err != nil || got.String() != want {
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
		"beanstalk://a" + numbered(",beanstalk://a", 32): `--queue "beanstalk://a32": more than 32 servers`,
		"nats://a" + strings.Repeat(",a", 32):            "--queue: has more than 32 servers",
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
	if cfg.Queue.Password != hidden {
		t.Fatalf("got %s", cfg.Queue)
	}
	const want = "nats://[secret]@a:4222,b:4222?replicas=1"
	for name, v := range map[string]any{"config": *cfg, "pointer to config": cfg} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
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
}
