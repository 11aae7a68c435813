package beanstalk

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"propeller/queue/beanstalk/beanstalktest"
)

// crowd has so many other tubes swept that a tube that gets a job is hardly ever found by a
// look: it is swept.
func crowd(t *testing.T, srv *beanstalktest.Server, w *watch) {
	t.Helper()
	tubes := make([]string, 2000)
	for i := range tubes {
		tubes[i] = fmt.Sprintf("crowd-%d", i)
	}
	putDelayed(t, srv, tubes, time.Hour)
	w.Sleep(tubes...)
	watched(t, srv, tubes[0], "1")
}

// putDelayed puts a job into each tube.
func putDelayed(t testing.TB, srv *beanstalktest.Server, tubes []string, delay time.Duration) {
	t.Helper()
	var lines []string
	for _, tube := range tubes {
		lines = append(lines, "use "+tube, fmt.Sprintf("put 1 %d 60 1\r\nx", delay/time.Second))
	}
	pipe(t, srv, lines)
}

// pipe sends commands that are answered with one line each, and a word in it that ends in -ED or -ING.
func pipe(t testing.TB, srv *beanstalktest.Server, commands []string) {
	t.Helper()
	q, err := open(Options{Addrs: []string{srv.Addr()}}, dialTCP)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	w, err := q.servers[0].dialWire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	command := func(out []byte, command string) []byte { return append(out, command...) }
	err = each(w, commands, command, func(command string, line []byte) error {
		word, _, _ := strings.Cut(string(line), " ")
		if !strings.HasSuffix(word, "ING") && !strings.HasSuffix(word, "ED") {
			return fmt.Errorf("%.40q: %w", command, unexpected(line))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
