package beanstalk

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fake is a scripted server for the answers that a real one hardly gives.
// Commands that the script leaves alone get the answers of an empty beanstalkd
// with one tube.
type fake struct {
	// script returns the answer to a command, without the line's end. ok false:
	// the usual answer. Answers hangUp and silence do what they say.
	script func(cmd []string) (answer string, ok bool)

	mu   sync.Mutex
	seen []string // the first word of every command
	wg   sync.WaitGroup
}

const (
	hangUp  = "\x00hang up"
	silence = "\x00silence"
)

// listen serves the script on a loopback port until the test ends.
func (f *fake) listen(t *testing.T) (addr string) {
	t.Helper()
	addr, _ = f.listenOn(t, "127.0.0.1:0")
	return addr
}

// listenOn does it on addr, until stop is called or the test ends.
func (f *fake) listenOn(t *testing.T, addr string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	conns := make(map[net.Conn]bool)
	f.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[nc] = true
			mu.Unlock()
			f.wg.Go(func() { f.serve(nc) })
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		mu.Lock()
		for nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		f.wg.Wait()
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// serve answers the commands of one connection.
func (f *fake) serve(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		cmd := strings.Fields(line)
		if len(cmd) == 0 {
			return
		}
		if cmd[0] == "put" {
			n, _ := strconv.Atoi(cmd[4])
			if _, err := io.CopyN(io.Discard, r, int64(n)+2); err != nil {
				return
			}
		}
		f.mu.Lock()
		f.seen = append(f.seen, cmd[0])
		f.mu.Unlock()
		answer, ok := f.script(cmd)
		if !ok {
			answer = usual(cmd)
		}
		switch answer {
		case hangUp:
			return
		case silence:
			_, _ = io.Copy(io.Discard, r) // until the client hangs up
			return
		}
		if _, err := io.WriteString(nc, answer+"\r\n"); err != nil {
			return
		}
	}
}

// usual is what an empty beanstalkd answers.
func usual(cmd []string) string {
	switch cmd[0] {
	case "watch":
		return "WATCHING 2"
	case "ignore":
		return "WATCHING 1"
	case "use":
		return "USING " + cmd[1]
	case "kick":
		return "KICKED 0"
	case "put":
		return "INSERTED 1"
	case "stats":
		return yaml("id: cafe", "binlog-current-index: 0")
	case "reserve-with-timeout":
		return "TIMED_OUT"
	case "delete", "release", "bury", "touch", "stats-job", "stats-tube", "reserve-job", "peek":
		return "NOT_FOUND"
	}
	return "UNKNOWN_COMMAND"
}

// yaml is the answer of a statistics command.
func yaml(lines ...string) string {
	body := "---\n" + strings.Join(lines, "\n") + "\n"
	return fmt.Sprintf("OK %d\r\n%s", len(body), body)
}

func (f *fake) saw(cmd string) bool { return f.count(cmd) > 0 }

func (f *fake) count(cmd string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.seen {
		if c == cmd {
			n++
		}
	}
	return n
}

// answers scripts one fixed answer per command word.
func answers(fixed map[string]string) func([]string) (string, bool) {
	return func(cmd []string) (string, bool) {
		a, ok := fixed[cmd[0]]
		return a, ok
	}
}

// sequence scripts the answers to one command word in turn; the usual ones
// follow.
func sequence(word string, list ...string) func([]string) (string, bool) {
	var mu sync.Mutex
	list = slices.Clone(list)
	return func(cmd []string) (string, bool) {
		mu.Lock()
		defer mu.Unlock()
		if cmd[0] != word || len(list) == 0 {
			return "", false
		}
		a := list[0]
		list = list[1:]
		return a, true
	}
}
