package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
)

// Package config brings the URLs of queues into one form, and the adapters read
// them: what the first lets pass means the same to the second.
func TestQueueURLsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	creds, ca := filepath.Join(dir, "n a&ts+.creds"), filepath.Join(dir, "ca.pem")
	s := apnstest.NewServer(apnstest.Options{})
	defer s.Close()
	for path, text := range map[string]string{creds: "x", ca: string(s.CACertPEM())} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]jetstream.Options{
		"embedded:///var/lib/q":                              {Dir: "/var/lib/q"},
		"embedded://./q":                                     {Dir: dir + "/q"},
		"embedded://../q":                                    {Dir: filepath.Dir(dir) + "/q"},
		"embedded://./a%20b%3fc%25%2F%23+":                   {Dir: dir + "/a b?c%/#+"},
		"embedded:///q?listen=127.0.0.1%3A4222&fsync=always": {Dir: "/q", FsyncAlways: true, Listen: "127.0.0.1:4222"},
		"embedded:///q?listen=[::1]:1":                       {Dir: "/q", Listen: "[::1]:1"},
		"embedded:///q?listen=LocalHost:4222":                {Dir: "/q", Listen: "localhost:4222"},
		"nats://a":                                           {Servers: []string{"a:4222"}},
		"nats://a,b:1,[::1]:2":                               {Servers: []string{"a:4222", "b:1", "[::1]:2"}},
		"tls://me:p%2Fw%3A%2C%40%25@a?replicas=1":            {Servers: []string{"a:4222"}, TLS: true, User: "me", Password: "p/w:,@%", Replicas: 1},
		"nats://to%20k+en@a?replicas=5":                      {Servers: []string{"a:4222"}, Token: "to k+en", Replicas: 5},
		"tls://a?ca=ca.pem&creds=n%20a%26ts%2B.creds":        {Servers: []string{"a:4222"}, TLS: true, CAFile: ca, CredsFile: creds},
	} {
		urls, err := config.ParseQueue(text, config.Options{Dir: dir})
		if err != nil || len(urls) != 1 {
			t.Errorf("%s: %q, %v", text, urls, err)
			continue
		}
		got, err := jetstream.Parse(urls[0])
		if err != nil || !reflect.DeepEqual(got, want) || onBeanstalkd(urls) {
			t.Errorf("%s, %s: %v\ngot  %s\nwant %s", text, urls[0], err, fields(got), fields(want))
		}
	}
	for text, want := range map[string][]string{
		"BEANSTALK://a":                 {"a:11300"},
		"beanstalk://a,beanstalk://b:1": {"a:11300", "b:1"},
		"beanstalk://[::1]":             {"[::1]:11300"},
		"beanstalk://[fe80::1%25eth0]":  {"[fe80::1%eth0]:11300"},
	} {
		urls, err := config.ParseQueue(text, config.Options{})
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := beanstalkOptions(urls)
		if err != nil || !onBeanstalkd(urls) || !reflect.DeepEqual(got, beanstalk.Options{Addrs: want}) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// fields shows what Options.String hides.
func fields(o jetstream.Options) string {
	type bare jetstream.Options
	return fmt.Sprintf("%+v", bare(o))
}

// Two processes cannot have one embedded queue; the error says what to do.
func TestEmbeddedQueueInUse(t *testing.T) {
	t.Parallel()
	urls := []string{"embedded://" + t.TempDir()}
	q, err := openQueue(urls, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	_, err = openQueue(urls, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "take a restart") {
		t.Errorf("a reload with other options: %v", err)
	}
	r := runProgram(t, t.TempDir(), "", "send", "--queue", urls[0], "--topic", topic, "--token", token(1))
	if want := fmt.Sprintf("process %d", os.Getpid()); r.status != 1 || !strings.Contains(r.err, want) || !strings.Contains(r.err, "--state-dir") {
		t.Errorf("%+v lacks %s", r, want)
	}
}
