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
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
)

// Of many lines a few are logged at once, then one in a while.
func TestSparing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, lines := newLog()
		s := newLimitedLog(log, time.Second, 3)
		count := func() int { return strings.Count(lines.String(), "msg=") }
		for range 100 {
			s.note(line{text: "same"})
		}
		if n := count(); n != 1 {
			t.Errorf("%d lines of one", n)
		}
		time.Sleep(1500 * time.Millisecond)
		if !strings.HasSuffix(lines.String(), "msg=same suppressed=98\n") {
			t.Errorf("kept back, and not told:\n%s", lines)
		}
		time.Sleep(time.Minute)
		before := count()
		for i := range 10_000 {
			s.note(line{text: fmt.Sprint(i)})
			time.Sleep(time.Millisecond)
		}
		if n := count() - before; n < 10 || n > 3+10 {
			t.Errorf("%d lines in ten seconds", n)
		}
		s.end()
		var told int
		for l := range strings.Lines(lines.String()) {
			var n int
			if _, after, ok := strings.Cut(l, "suppressed="); ok {
				_, _ = fmt.Sscan(after, &n)
			}
			told += 1 + n
		}
		if told != 10_100 {
			t.Errorf("told of %d", told)
		}
	})
}

// A line of the log is short and in print.
func TestBrief(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "short", strings.Repeat("x", 500), strings.Repeat("ä", 400), strings.Repeat("\x1b[2J\n", 400), "x" + strings.Repeat("\xff", 9000)} {
		if got := brief(text); len(got) > maxLine || strings.ContainsAny(got, "\n\x1b") || !utf8.ValidString(got) || len(text) < 10 && got != text {
			t.Errorf("%.20q: %q", text, got)
		}
	}
}

// What strangers do to the listener, and who has the token to the queue, does not fill
// the log.
func TestServerLogIsBounded(t *testing.T) {
	t.Parallel()
	log, lines := newLog()
	q := openReady(t, Options{URL: embeddedIn(t.TempDir(), "listen", "127.0.0.1:0"), Log: log})
	c := consumeTest(t, q, "t")
	mustPut(t, q, "t", "x")
	mustDone(t, mustReceive(t, c, 1)...)
	addr := readLine(filepath.Join(q.opts.Dir, listenFile))
	for i := range 100 {
		stranger(t, addr, fmt.Sprintf("CONNECT {\"user\":\"u%d\",\"pass\":\"x\"}\r\nPING\r\n", i))
		stranger(t, addr, fmt.Sprintf("CONNECT {\"auth_token\":\"t%d\",\"name\":\"n%d\"}\r\nPING\r\n", i, i))
		stranger(t, addr, fmt.Sprintf("rubbish %d\r\n", i))
	}
	nc, err := nats.Connect(addr, nats.Token(readLine(filepath.Join(q.opts.Dir, tokenFile))),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for i := range 5000 {
		if err := nc.PublishRequest(jobSubject("other"), fmt.Sprintf("$JS.ACK.%s.t.1.%d.1.1700000000000000000.0", jobsStream, 1000+i), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish(fmt.Sprintf("$JS.ACK.%s.t.1.%d.1.1700000000000000000.0", jobsStream, 1000+i), []byte("-NAK "+strings.Repeat("\n", 2000))); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	closeNow(t, q)
	wrong, all := 0, 0
	for l := range strings.Lines(lines.String()) {
		if len(l) > 2*maxLine {
			t.Errorf("a line of %d bytes: %.200s", len(l), l)
		}
		if strings.Contains(l, `"queue server: `) {
			all++
		}
		if strings.Contains(l, `msg="queue server: missing or wrong token"`) {
			wrong++
		}
	}
	if wrong != 2 || !strings.Contains(lines.String(), "suppressed=298") { // one at once, one at the end
		t.Errorf("%d lines of wrong tokens:\n%.9000s", wrong, lines)
	}
	if all < 20 || all > 100 {
		t.Errorf("%d lines, want some 50:\n%.5000s", all, lines)
	}
}

// What a server says again and again of the connection does not either.
func TestServersWordsAreBounded(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	m := newMiddleman(t, ns.all[0].addr)
	o := ns.options(t)
	o.Servers = []string{m.addr}
	log, lines := newLog()
	o.Log = log
	q := openReady(t, o)
	for range 100 {
		m.say("-ERR 'Permissions Violation for Subscription to \"" + strings.Repeat("x", 600) + "\"'\r\n")
	}
	eventually(t, "it is told", func() bool { return strings.Contains(lines.String(), "ermissions") })
	mustPut(t, q, "t", "x")
	closeNow(t, q)
	text := lines.String()
	if n := strings.Count(text, `msg="queue connection"`); n < 1 || n > 2 || !strings.Contains(text, "suppressed=") {
		t.Errorf("%d lines:\n%.3000s", n, text)
	}
	if len(text) > 10*maxLine {
		t.Errorf("%d bytes", len(text))
	}
}

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
