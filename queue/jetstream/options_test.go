package jetstream

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"propeller/queue"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]Options{
		"embedded:///var/lib/propeller":           {Dir: "/var/lib/propeller"},
		"embedded:///a%20b?fsync=always":          {Dir: "/a b", FsyncAlways: true},
		"embedded://./data?listen=127.0.0.1:4222": {Dir: "data", Listen: "127.0.0.1:4222"},
		"nats://a":               {Servers: []string{"a:4222"}},
		"nats://u:p%40ss@a:1,b/": {Servers: []string{"a:1", "b:4222"}, User: "u", Password: "p@ss"},
		"nats://token@[::1]:5":   {Servers: []string{"[::1]:5"}, Token: "token"},
		"tls://a?creds=/x.creds&replicas=5&ca=/c.pem": {Servers: []string{"a:4222"}, TLS: true, CredsFile: "/x.creds", Replicas: 5, CAFile: "/c.pem"},
	} {
		got, err := Parse(url)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v %+v, %v", url, got, got, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"beanstalk://a":                         `scheme "beanstalk"`,
		"nats":                                  "want embedded",
		"embedded://":                           `folder ""`,
		"embedded://data":                       `folder "data"`,
		"embedded:///a?listen=0.0.0.0:4222":     "loopback",
		"embedded:///a?fsync=never":             "fsync",
		"embedded:///a?replicas=3":              `"replicas": no such setting`,
		"nats://":                               `server ""`,
		"nats://a:99999":                        "port",
		"nats://a,,b":                           `server ""`,
		"nats://a?replicas=2":                   "1, 3 or 5",
		"nats://a?replicas=3&replicas=3":        "given twice",
		"nats://user:hunter2@":                  `server ""`,
		"nats://user:hunter2%zz@a":              "percent",
		"nats://user:hunter2@a:x":               "port",
		"tls://user:hunter2@a?creds=x&fsync=no": "fsync",
	} {
		_, err := Parse(url)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the password is in the error: %v", url, err)
		}
	}
}

func TestOptionsHideSecrets(t *testing.T) {
	t.Parallel()
	o, err := Parse("nats://user:hunter2@a,b")
	if err != nil {
		t.Fatal(err)
	}
	log, lines := newLog()
	log.Info("x", "queue", o)
	text := fmt.Sprintf("%v %+v %#v %s", o, o, o, o) + lines.String() + slog.Any("o", o).String()
	if strings.Contains(text, "hunter2") || !strings.Contains(text, "nats://a:4222,b:4222") {
		t.Fatal(text)
	}
}

func TestOpenRejects(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"nothing":  {},
		"both":     {Dir: "x", Servers: []string{"a:1"}},
		"replicas": {Servers: []string{"a:1"}, Replicas: 4},
		"ack wait": {Servers: []string{"a:1"}, AckWait: 1},
		"listen":   {Dir: "x", Listen: "8.8.8.8:1"},
		"creds":    {Servers: []string{"a:1"}, CredsFile: "/nowhere/x.creds"},
	} {
		if q, err := Open(o); err == nil {
			t.Errorf("%s: no error", name)
			_ = q.Close()
		}
	}
}

// Different tubes have different consumers.
func TestDurableIsInjective(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	for _, tube := range []string{"a.b", "a_b", "a-b", "ab", "a.b.c", "a.b_c", "A.b", "a--b", "a._b"} {
		if err := queue.CheckTube(tube); err != nil {
			t.Fatal(err)
		}
		d := durable(tube)
		if strings.ContainsAny(d, ". *>/\\") || seen[d] != "" {
			t.Errorf("%q: consumer %q, as %q", tube, d, seen[d])
		}
		seen[d] = tube
	}
}

func TestParseDelivery(t *testing.T) {
	t.Parallel()
	want := delivery{seq: 22, tries: 3, stored: 1700000000000000000}
	for _, s := range []string{
		"$JS.ACK.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5",
		"$JS.ACK._.ACCHASH.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5",
		"$JS.ACK.hub.ACCHASH.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5.x1",
		"$JS.ACK.hub.ACCHASH.PROPELLER_JOBS.com=app.3.22.7.1700000000000000000.5.x1.more.and.more",
	} {
		if got, err := parseDelivery(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "$JS.ACK", "_INBOX.a.b.c.d.e.f.g.h", "$JS.ACK.a.b.x.22.7.1.5", "$JS.ACK.a.b.3.x.7.1.5", "$JS.ACK.a.b.3.22.7.x.5", "$JS.ACK.a.b.c.3.22.7.1.5"} {
		if got, err := parseDelivery(s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}
