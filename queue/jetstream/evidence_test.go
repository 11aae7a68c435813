package jetstream

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the server says when it stores nothing any more, and what strangers may have it
// say.
func TestWriteFault(t *testing.T) {
	t.Parallel()
	full := errors.New("write 1.blk: no space left on device")
	for _, tt := range []struct {
		format string
		args   []any
		want   string
	}{
		{"Filestore [PROPELLER_JOBS] Critical write error: %v", []any{full}, full.Error()},
		{"Filestore [PROPELLER_BURIED] Critical write error: %v", []any{full}, full.Error()},
		{"JetStream stream '%s > %s' critical write error: %v", []any{"$G", jobsStream, full}, full.Error()},
		{"Filesystem permission denied while writing msg, disabling JetStream: %v", []any{full}, full.Error()},
		{"JetStream failed to store a msg on stream '%s > %s': %v", []any{"$G", jobsStream, full}, ""},
		{"Filestore [PROPELLER_JOBS] Ignoring non-write error: %v", []any{full}, ""},
		{"Filestore [OTHER] Critical write error: %v", []any{full}, ""},
		{"JetStream stream '%s > %s' critical write error: %v", []any{"$G", "OTHER", full}, ""},
		{"%s", []any{"Filestore [PROPELLER_JOBS] Critical write error: x"}, ""},
		{"127.0.0.1:1 - cid:1 - \"Filestore [PROPELLER_JOBS] Critical write error: %v", []any{full}, ""},
	} {
		if got, ok := writeFault(tt.format, tt.args); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, %v", tt.format, got, ok)
		}
	}
}

func TestReadFault(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad message")
	const found, none = "Received an error looking up message with sequence %d for consumer '%s > %s > %s': %v", "Received an error looking up message for consumer '%s > %s > %s': %v"
	for _, tt := range []struct {
		format string
		args   []any
		want   string
	}{
		{found, []any{7, "$G", jobsStream, "t", bad}, "with sequence 7 for consumer '$G > PROPELLER_JOBS > t': bad message"},
		{none, []any{"$G", jobsStream, "t", bad}, "for consumer '$G > PROPELLER_JOBS > t': bad message"},
		{none, []any{"$G", "OTHER", jobsStream, bad}, ""},
		{"Client parser ERROR, proto=%q", []any{fmt.Sprintf(none, "$G", jobsStream, "t", bad)}, ""},
		{"%s", []any{fmt.Sprintf(none, "$G", jobsStream, "t", bad)}, ""},
	} {
		if got, ok := readFault(tt.format, tt.args); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q %q: %q, %v", tt.format, tt.args, got, ok)
		}
	}
}

// The formats are those of the server's code.
func TestServerFormats(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/nats-io/nats-server/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	for file, formats := range map[string][]string{
		"filestore.go": {`"Filestore [%s] %s", fs.cfg.Name, format`, `fs.error("Critical write error: %v", err)`},
		"stream.go":    {`"JetStream stream '%s > %s' critical write error: %v"`, `"Filesystem permission denied while writing msg, disabling JetStream: %v"`},
		"monitor.go":   {`"JetStream stream '%s > %s' write error: %v"`},
		"consumer.go": {
			`"Received an error looking up message with sequence %d for consumer '%s > %s > %s': %v"`,
			`"Received an error looking up message for consumer '%s > %s > %s': %v"`,
		},
	} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "server", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range formats {
			if !strings.Contains(string(text), f) {
				t.Errorf("%s has no %s", file, f)
			}
		}
	}
}

// stranger says something to a server and reads until it ends the connection.
func stranger(t *testing.T, addr, says string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write([]byte(says)); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(nc); ; {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
	}
}

// No words of a stranger make the server be restarted.
func TestStrangersWords(t *testing.T) {
	t.Parallel()
	log, lines := newLog()
	q := openReady(t, Options{URL: embeddedIn(t.TempDir(), "listen", "127.0.0.1:0"), Log: log})
	was, _ := q.embedded.running()
	addr := readLine(filepath.Join(q.opts.Dir, listenFile))
	for _, words := range []string{
		"Critical write error: x", "Filestore [PROPELLER_JOBS] Critical write error: %v", "disabling JetStream: x",
		"Received an error looking up message for consumer '$G > PROPELLER_JOBS > t': x",
	} {
		stranger(t, addr, words+"\r\n")
		stranger(t, addr, fmt.Sprintf("CONNECT {\"user\":%q,\"pass\":\"x\"}\r\nPING\r\n", words))
		stranger(t, addr, fmt.Sprintf("CONNECT {\"name\":%q,\"lang\":%[1]q,\"version\":%[1]q,\"auth_token\":\"x\"}\r\nPING\r\n", words))
	}
	if err := q.embedded.trouble(); err != nil {
		t.Error(err)
	}
	if len(q.embedded.unread) > 0 {
		t.Error("a job is said to be unreadable")
	}
	mustPut(t, q, "t", "x")
	if is, _ := q.embedded.running(); is != was {
		t.Error("another server runs")
	}
	if !strings.Contains(lines.String(), "ritical write error: x") {
		t.Errorf("the log does not have what the test is about:\n%s", lines)
	}
}
