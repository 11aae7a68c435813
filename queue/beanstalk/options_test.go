package beanstalk

import (
	"math"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"beanstalk://127.0.0.1:11300": "127.0.0.1:11300",
		"beanstalk://queue.example":   "queue.example:11300",
		"beanstalk://queue.example/":  "queue.example:11300",
		"beanstalk://[::1]:1":         "[::1]:1",
		"beanstalk://[::1]":           "[::1]:11300",
		"":                            "",
		"127.0.0.1:11300":             "",
		"localhost:11300":             "",
		"http://127.0.0.1:11300":      "",
		"beanstalk:///":               "",
		"beanstalk://:11300":          "",
		"beanstalk://a:0":             "",
		"beanstalk://a:65536":         "",
		"beanstalk://a:b":             "",
		"beanstalk://u:p@a:1":         "",
		"beanstalk://a:1/tube":        "",
		"beanstalk://a:1?x=y":         "",
	} {
		got, err := ParseURL(url)
		if (err != nil) != (want == "") || (err == nil && got != want) {
			t.Errorf("%q: %q, %v; want %q", url, got, err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	ok := []string{"127.0.0.1:1"}
	for name, o := range map[string]Options{
		"no address":     {},
		"no port":        {Addrs: []string{"127.0.0.1"}},
		"port 0":         {Addrs: []string{"127.0.0.1:0"}},
		"no host":        {Addrs: []string{":1"}},
		"twice":          {Addrs: []string{"a:1", "a:1"}},
		"negative TTR":   {Addrs: ok, TTR: -1},
		"huge TTR":       {Addrs: ok, TTR: math.MaxInt64},
		"reservers":      {Addrs: ok, Reservers: -1},
		"many reservers": {Addrs: ok, Reservers: 257},
		"timeout":        {Addrs: ok, Timeout: -1},
	} {
		if q, err := Open(o); err == nil {
			t.Errorf("%s: no error", name)
			q.Close()
		}
	}
}

func TestWholeSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		-time.Second:            0,
		0:                       0,
		1:                       time.Second,
		999 * time.Millisecond:  time.Second,
		time.Second:             time.Second,
		1001 * time.Millisecond: 2 * time.Second,
		math.MaxInt64:           maxSeconds * time.Second,
	} {
		if got := wholeSeconds(d); got != want {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
	}
}
