package queueurl

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
	"gopkg.in/yaml.v3"

	"propeller/apnsconn/apnstest"
)

// hidden is a password.
const hidden = "hunter2"

func TestParse(t *testing.T) {
	t.Parallel()
	const dir = "/srv/q"
	for text, want := range map[string]string{
		"beanstalk://127.0.0.1":        "beanstalk://127.0.0.1:11300",
		"BEANSTALK://Queue.example:1/": "beanstalk://Queue.example:1",
		"beanstalk://[::1]":            "beanstalk://[::1]:11300",
		"beanstalk://[fe80::1%25eth0]": "beanstalk://[fe80::1%25eth0]:11300",

		"embedded:///var/lib/propeller/":                     "embedded:///var/lib/propeller",
		"embedded:///var/../lib":                             "embedded:///lib",
		"embedded://./data/queue":                            "embedded://" + dir + "/data/queue",
		"embedded://./a/../data":                             "embedded://" + dir + "/data",
		"embedded://../data":                                 "embedded://" + "/srv/data",
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
		u, err := Parse(text, Files{Dir: dir})
		if err != nil || u.text("") != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", text, u.text(""), err, want)
			continue
		}
		if again, err := Parse(want, Files{}); err != nil || !again.Equal(u) {
			t.Errorf("%s is not its own form: %q, %v", want, again, err)
		}
	}
}

// What an adapter gets.
func TestURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]URL{
		"embedded://./a%20b%3fc%25%2F%23+?listen=[::1]:1": {Scheme: "embedded", Dir: "/srv/q/a b?c%/#+", Options: map[string]string{"listen": "[::1]:1"}},
		"tls://me:p%2Fw%3A%2C%40%25@a?replicas=1":         {Scheme: "tls", Servers: []string{"a:4222"}, User: "me", Password: "p/w:,@%", Options: map[string]string{"replicas": "1"}},
		"nats://to%20k+en@a":                              {Scheme: "nats", Servers: []string{"a:4222"}, Token: "to k+en"},
		"tls://a?ca=ca.pem&creds=n%20a%26ts%2B.creds":     {Scheme: "tls", Servers: []string{"a:4222"}, Options: map[string]string{"ca": "/srv/q/ca.pem", "creds": "/srv/q/n a&ts+.creds"}},
		"beanstalk://[fe80::1%25eth0]":                    {Scheme: "beanstalk", Servers: []string{"[fe80::1%eth0]:11300"}},
	} {
		if u, err := Parse(text, Files{Dir: "/srv/q"}); err != nil || !reflect.DeepEqual(u, want) {
			t.Errorf("%s: %v, %#v", text, err, u.text(""))
		}
	}
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                          "must start with beanstalk://",
		"nats":                      "must start with",
		"redis://a":                 "must start with",
		"nats:a":                    "lacks // behind the scheme",
		"beanstalk://u:hunter2@a":   "which beanstalk does not know",
		"beanstalk://":              "without a host",
		"beanstalk://a:1:1":         "not host:port",
		"beanstalk://a,b":           "are a list",
		"beanstalk://a/tube":        "has a /",
		"beanstalk://a:0":           "port",
		"beanstalk://a:65536":       "port",
		"beanstalk://a?ttr=1":       "behind the port",
		"embedded://":               "no folder",
		"embedded://data":           "./ in front",
		"embedded:///":              "root folder",
		"embedded:///a?replicas=3":  "unknown option: there are fsync, listen",
		"embedded:///a?listen=:1":   "this machine alone",
		"nats://":                   "without a host",
		"nats://a,,b":               "without a host",
		"nats://a,a":                "twice",
		"nats://user:hunter2@":      "without a host",
		"nats://user:hunter2%zz@a":  "no valid user",
		"nats://user:hunter2@a:x":   "not host:port",
		"nats://u:hunter2@a,v:w@b":  "no valid user",
		"nats://[fe80::1%25eth0]":   "not host:port",
		"tls://hunter2@a?creds=x":   "a user and creds: give one",
		"tls://a?nkey=x&creds=x":    "creds and nkey: give one",
		"tls://a?cert=x":            "only one of cert and key",
		"tls://a?key=x":             "only one of cert and key",
		"tls://a?ca=":               "ca is empty",
		"tls://a?domain=a.b":        "domain must be",
		"tls://a?domain=":           "domain must be",
		"tls://a?inbox_prefix=a.>":  "inbox_prefix must be",
		"tls://a?inbox_prefix=a.":   "inbox_prefix must be",
		"tls://a?tls_first=yes":     "tls_first must be true",
		"tls://a?replicas=2":        "1, 3 or 5",
		"tls://a?replicas=1;x=2":    "cannot be read",
		"tls://a?ca=x&ca=y":         "twice",
		"tls://u:hunter2@a?fsync=x": "unknown option",
		"nats://a" + strings.Repeat(",a", maxServers): "more than 32 servers",
	} {
		u, err := Parse(text, Files{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), hidden) || !u.Equal(URL{}) {
			t.Errorf("%s: %v, %v, want %q", text, u, err, want)
		}
	}
}

// What the files of a URL hold is looked at.
func TestFiles(t *testing.T) {
	t.Parallel()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := key.Seed()
	ours, others := apnstest.NewServer(apnstest.Options{}), apnstest.NewServer(apnstest.Options{})
	defer ours.Close()
	defer others.Close()
	files := Files{Dir: "/srv", Read: func(text, path string) ([]byte, error) {
		if path != filepath.Join("/srv", text) {
			t.Errorf("%s is read as %s", text, path)
		}
		switch text {
		case "u.nk":
			return seed, nil
		case "ca.pem":
			return ours.CACertPEM(), nil
		}
		return nil, errors.New("no such file")
	}}
	for text, want := range map[string]string{
		"tls://a?nkey=u.nk":               "",
		"tls://a?ca=ca.pem":               "",
		"tls://a?nkey=ca.pem":             "starts with SU",
		"tls://a?creds=none":              "creds names a file that cannot be used: no such file",
		"tls://a?cert=ca.pem&key=u.nk":    "cannot be used together",
		"nats://" + hidden + "@a?ca=none": "ca names a file that cannot be used: no such file",
	} {
		_, err := Parse(text, files)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), hidden) || strings.Contains(err.Error(), string(seed))) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	var all URL
	for _, text := range Split("beanstalk://a, BEANSTALK://b:1") {
		u, err := Parse(text, Files{})
		if err = errors.Join(err, all.Add(u)); err != nil {
			t.Fatal(err)
		}
	}
	if all.String() != "beanstalk://a:11300,beanstalk://b:1" {
		t.Errorf("got %s", all)
	}
	for text, want := range map[string]string{"beanstalk://b:1": "same server", "nats://a": "not alone", "embedded:///q": "not alone"} {
		u, err := Parse(text, Files{})
		if err != nil {
			t.Fatal(err)
		}
		if err := all.Add(u); err == nil || !strings.Contains(err.Error(), want) || !u.Equal(u) || all.Equal(u) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if parts := Split("nats://me:a@x,b:1, c"); len(parts) != 1 || parts[0] != "nats://me:a@x,b:1,c" {
		t.Errorf("got %q", parts)
	}
}

// User, password and token are in none of the ways in which a URL can be printed.
func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"nats://me:" + hidden + "@a,b?replicas=1": "nats://[secret]@a:4222,b:4222?replicas=1",
		"tls://" + hidden + "@a":                  "tls://[secret]@a:4222",
		"embedded:///srv/a@b":                     "embedded:///srv/a@b",
	} {
		u, err := Parse(text, Files{})
		if err != nil || u.String() != want {
			t.Fatalf("%v, %v", u, err)
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", u, "p", &u)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", u, "in", struct{ U URL }{u})
		j, jsonErr := json.Marshal(u)
		y, yamlErr := yaml.Marshal(map[string]any{"v": &u})
		out := log.String() + string(j) + string(y)
		// Not %p: fmt asks no method of what %p does not fit.
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "% X", "%d", "%c", "%10v"} {
			out += fmt.Sprintf(verb, u) + fmt.Sprintf(verb, &u) + fmt.Sprintf(verb, struct{ U URL }{u})
		}
		if jsonErr != nil || yamlErr != nil || !strings.Contains(out, want) || strings.Contains(out, hidden) || strings.Contains(out, fmt.Sprintf("%x", hidden)) {
			t.Errorf("%v, %v, %s", jsonErr, yamlErr, out)
		}
	}
}

// FuzzParse: whatever the text, the form it is brought into is its own form.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"beanstalk://[::1]:1", "embedded://./a%20b?fsync=always&listen=127.0.0.1:1", "embedded:///a@b/../c",
		"nats://me:p%40w@a,b:1?replicas=3", "tls://token@[::1]", "nats", "embedded", "nats:", "embedded://%", "nats://@", "nats://a%00b",
		"beanstalk://[fe80::1%25eth0]", "tls://a?domain=d&inbox_prefix=_I.x", "nats://:@a", "nats://u:@a",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, err := Parse(text, Files{Dir: "/d"})
		if err != nil {
			return
		}
		if again, err := Parse(first.text(""), Files{Dir: "/elsewhere"}); err != nil || !again.Equal(first) {
			t.Errorf("%q: %q, then %q, %v", text, first.text(""), again.text(""), err)
		}
	})
}
