package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"propeller/queue/queueurl"
)

// Every URL that can be written has an adapter.
func TestAdapters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, text := range []string{"beanstalk://127.0.0.1:1", "embedded://" + dir, "nats://127.0.0.1:1", "tls://127.0.0.1:1"} {
		u, err := queueurl.Parse(text, queueurl.Files{})
		if err != nil {
			t.Fatal(err)
		}
		q, err := openQueue(u, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := queueurl.Parse("redis://a", queueurl.Files{}); err == nil || strings.Count(err.Error(), "://") != len(adapters)+1 {
		t.Errorf("%v: lists other schemes than those of %d adapters", err, len(adapters))
	}
	if _, err := openQueue(queueurl.URL{Scheme: "redis"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a queue of no adapter was opened")
	}
}

// Two processes cannot have one embedded queue; the error says what to do.
func TestEmbeddedQueueInUse(t *testing.T) {
	t.Parallel()
	u := queueurl.URL{Scheme: "embedded", Dir: t.TempDir()}
	q, err := openQueue(u, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	_, err = openQueue(u, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "restart it to change the options") {
		t.Errorf("a reload with other options: %v", err)
	}
	r := runProgram(t, t.TempDir(), "", "send", "--queue", u.String(), "--topic", topic, "--token", token(1))
	if want := fmt.Sprintf("process %d", os.Getpid()); r.status != 1 || !strings.Contains(r.err, want) || !strings.Contains(r.err, "--state-dir") {
		t.Errorf("%+v lacks %s", r, want)
	}
}
