package main

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"propeller/apnsconn/apnstest"
)

// manager is a service manager's socket.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	name string // for NOTIFY_SOCKET
}

func newManager(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn, name}
}

// message is a datagram's variables.
type message map[string]string

func (m *manager) next() message {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 8192)
	n, err := m.conn.Read(buf)
	if err != nil {
		m.t.Fatalf("no message: %v", err)
	}
	return parseMessage(m.t, string(buf[:n]))
}

func parseMessage(t *testing.T, text string) message {
	t.Helper()
	out := make(message)
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Errorf("line %q of message %q is no assignment", line, text)
		}
		out[name] = value
	}
	return out
}

// until is the next message that has the variable; those before it may only be
// pings and changes of the status.
func (m *manager) until(name string) message {
	m.t.Helper()
	for {
		got := m.next()
		if _, ok := got[name]; ok {
			return got
		}
		for other := range got {
			if other != "WATCHDOG" && other != "STATUS" {
				m.t.Fatalf("%v before %s", got, name)
			}
		}
	}
}

func wants(t *testing.T, got message, want message) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("message %v\nwant    %v", got, want)
	}
}

// startManaged starts the daemon with the variables in its environment.
func startManaged(t *testing.T, s *site, env ...string) *daemonProcess {
	t.Helper()
	cmd := program()
	cmd.Env = append(cmd.Env, env...)
	d, err := startProgram(t, s.dir, cmd)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What a service manager hears from the start of the built program to its end.
func TestLifeUnderAServiceManager(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	m := newManager(t, filepath.Join(s.dir, "notify"))
	d := startManaged(t, s, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=20000")
	wants(t, m.next(), message{"READY": "1", "STATUS": "1 app"})
	for range 5 {
		if got := m.next(); got["WATCHDOG"] != "1" {
			t.Errorf("message %v, want a ping", got)
		}
	}

	const second = "com.example.second"
	s.cert(second)
	s.configure(topic, second)
	before, ok := monotonic()
	if !ok {
		t.Fatal("no monotonic clock")
	}
	d.signal(syscall.SIGHUP)
	got := m.until("RELOADING")
	at, err := strconv.ParseInt(got["MONOTONIC_USEC"], 10, 64)
	if after, _ := monotonic(); err != nil || at < before.Microseconds() || at > after.Microseconds() {
		t.Errorf("MONOTONIC_USEC %q, not from %d to %d", got["MONOTONIC_USEC"], before.Microseconds(), after.Microseconds())
	}
	if got["RELOADING"] != "1" || len(got) != 2 {
		t.Errorf("message %v", got)
	}
	wants(t, m.until("READY"), message{"READY": "1", "STATUS": "2 apps"})

	s.write("propeller.yaml", "apps:\n  - {topic: x, colour: red}\n")
	d.signal(syscall.SIGHUP)
	m.until("RELOADING")
	got = m.until("READY")
	if status := got["STATUS"]; got["READY"] != "1" || !strings.HasPrefix(status, "2 apps; reload refused, nothing is changed: propeller.yaml:2: ") {
		t.Errorf("message %v", got)
	}
	s.configure(topic)
	d.signal(syscall.SIGHUP)
	m.until("RELOADING")
	wants(t, m.until("READY"), message{"READY": "1", "STATUS": "1 app"})

	d.signal(syscall.SIGTERM)
	wants(t, m.until("STOPPING"), message{"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "50000000", "STATUS": "finishing what is in flight"})
	if status := d.exit(); status != 0 {
		t.Errorf("status %d after SIGTERM", status)
	}
}

// While the daemon drains, the watchdog gets its pings, and a reload asked for
// meanwhile is not reported: to the manager the unit stops.
func TestPingsWhileDraining(t *testing.T) {
	s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Silence: true})})
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	m := newManager(t, filepath.Join(s.dir, "notify"))
	d := startManaged(t, s, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=20000")
	until(t, "one in flight", func() bool { return s.apns.Count() == 1 })
	m.until("READY")
	d.signal(syscall.SIGTERM)
	m.until("STOPPING")
	d.signal(syscall.SIGHUP)
	for range 10 {
		wants(t, m.next(), message{"WATCHDOG": "1"})
	}
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 1 {
		t.Errorf("status %d after the second signal", status)
	}
}

// A refused credential shows in the status.
func TestStatusNamesBrokenApps(t *testing.T) {
	s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 403, Reason: "BadCertificate"})})
	// An abstract name holds no path of a file system, and leaves nothing there.
	m := newManager(t, "@propeller-test-"+strconv.Itoa(os.Getpid())+"-"+t.Name())
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	startManaged(t, s, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=20000", "WATCHDOG_PID=")
	const want = "1 app; 1 broken: " + topic + " (403 BadCertificate)"
	for got := m.next(); got["STATUS"] != want; got = m.next() {
		if status := got["STATUS"]; status != "" && !strings.HasPrefix(status, "1 app") {
			t.Fatalf("status %q, want %q", status, want)
		}
	}
}

// A restart would not bring back the queue or APNs: the pings go on, with both
// frozen and with both gone.
func TestPingsThroughOutages(t *testing.T) {
	s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Silence: true})})
	m := newManager(t, filepath.Join(s.dir, "notify"))
	startManaged(t, s, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=20000")
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	until(t, "one in flight", func() bool { return s.apns.Count() == 1 })
	m.until("READY")
	s.bs.Freeze()
	for range 50 {
		m.until("WATCHDOG")
	}
	s.apns.StopListening()
	s.apns.EachConn(func(c *apnstest.Conn) { c.CloseAbruptly() })
	s.bs.Kill()
	for !strings.HasPrefix(m.until("STATUS")["STATUS"], "1 app; 1 no queue: "+topic+" (queue unavailable: ") {
	}
	for range 50 {
		m.until("WATCHDOG")
	}
}

// SIGTERM is not lost among many SIGHUPs, nor late because the manager does not
// read.
func TestTermAfterManySIGHUPs(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	m := newManager(t, filepath.Join(s.dir, "notify"))
	d := startManaged(t, s, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=200000")
	d.says("cannot tell the service manager") // its queue is full
	for range 20 {
		d.signal(syscall.SIGHUP)
		time.Sleep(2 * time.Millisecond) // the kernel keeps one of a kind
	}
	d.signal(syscall.SIGTERM)
	d.says("msg=stopping")
	if status := d.exit(); status != 0 {
		t.Errorf("status %d after SIGTERM", status)
	}
}

// A socket that is not there stops nothing.
func TestServiceManagerAbsent(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	d := startManaged(t, s, "NOTIFY_SOCKET="+filepath.Join(s.dir, "nowhere"))
	d.says("cannot tell the service manager")
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// Whoever reads the log may go: the daemon goes on, and drains.
func TestLogReaderGone(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	cmd := program()
	cmd.Dir = s.dir
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil { // it has started
		t.Fatal(err)
	}
	r.Close()
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	until(t, "the push arrives", func() bool { return s.apns.Answered() == 1 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// The variables are for this process alone. Not parallel: it has one environment.
func TestEnvironmentIsTaken(t *testing.T) {
	for _, name := range []string{envNotify, envWatchdog, envWatchdogPID} {
		t.Setenv(name, "1")
	}
	t.Setenv(envNotify, "/nowhere")
	t.Setenv(envWatchdogPID, strconv.Itoa(os.Getpid()))
	n := takeNotifier(slog.New(slog.DiscardHandler))
	if n.send == nil || n.watchdog != time.Microsecond {
		t.Errorf("watchdog %v", n.watchdog)
	}
	for _, name := range []string{envNotify, envWatchdog, envWatchdogPID} {
		if value, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%q is still there", name, value)
		}
	}
}

func TestNotifierOfEnvironment(t *testing.T) {
	t.Parallel()
	const pid = 7
	tests := []struct {
		socket, usec, pid string
		every             time.Duration
		warns             string
	}{
		{"", "", "", 0, ""},
		{"", "30000000", "7", 0, ""},
		{"/run/x", "", "", statusEvery, ""},
		{"@x", "30000000", "", 15 * time.Second, ""},
		{"/run/x", "30000000", "7", 15 * time.Second, ""},
		{"/run/x", "30000000", "8", statusEvery, ""},
		{"/run/x", "1", "", time.Millisecond, ""},
		{"/run/x", "9223372036854775807", "", 12 * time.Hour, ""},
		{"/run/x", "0", "", statusEvery, `"0"`},
		{"/run/x", "soon", "", statusEvery, `"soon"`},
		{"vsock:2:1234", "30000000", "", 0, "vsock:2:1234"},
		{"relative", "", "", 0, "relative"},
	}
	for _, test := range tests {
		var log bytes.Buffer
		env := map[string]string{envNotify: test.socket, envWatchdog: test.usec, envWatchdogPID: test.pid}
		n := newNotifier(func(name string) string { return env[name] }, pid, slog.New(slog.NewTextHandler(&log, nil)))
		if got := n.every(); got != test.every {
			t.Errorf("%v: every %v, want %v", env, got, test.every)
		}
		if text := strings.ReplaceAll(log.String(), `\"`, `"`); (test.warns == "") != (text == "") || !strings.Contains(text, test.warns) {
			t.Errorf("%v: logs %q, want %q", env, text, test.warns)
		}
	}
}

// A manager that does not read delays a message by notifyLimit, no longer. Its
// failures are logged once.
func TestManagerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	for { // until its queue is full
		if err := sendTo(m.name, "X=1"); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
	}
	var log bytes.Buffer
	n := &notifier{send: func(s string) error { return sendTo(m.name, s) }, log: slog.New(slog.NewTextHandler(&log, nil))}
	n.ready("a")
	n.alive("b")
	if text := log.String(); strings.Count(text, "cannot tell") != 1 || !strings.Contains(text, "READY=1") {
		t.Errorf("log %q", text)
	}
	for m.next()["READY"] == "" { // reading makes room for one that was not sent
		n.ready("c")
	}
	if text := log.String(); !strings.Contains(text, "told again") {
		t.Errorf("log %q", text)
	}
}

// STOPPING=1 is the last word but for pings.
func TestNothingAfterStopping(t *testing.T) {
	t.Parallel()
	var sent []string
	n := &notifier{watchdog: time.Second, log: slog.New(slog.DiscardHandler), send: func(s string) error { sent = append(sent, s); return nil }}
	n.stop(time.Second, "a")
	n.reloading()
	n.ready("b")
	n.alive("c")
	n.stop(time.Second, "d")
	want := []string{"STOPPING=1\nEXTEND_TIMEOUT_USEC=1000000\nSTATUS=a", "WATCHDOG=1"}
	if !slices.Equal(sent, want) {
		t.Errorf("%q, want %q", sent, want)
	}
}

// A status is one line of UTF-8 that fits a datagram, whatever APNs says.
func TestOneLine(t *testing.T) {
	t.Parallel()
	if got, want := oneLine("a\nb\rc\x00\xff"), "a; b c \uFFFD"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	got := oneLine(strings.Repeat("é", statusSize))
	if !utf8.ValidString(got) || len(got) > statusSize+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes that end with %q", len(got), got[len(got)-8:])
	}
}
