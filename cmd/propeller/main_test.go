package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/jetstream/jetstreamtest"
)

// The tests run the program as a user would: this test binary executes itself
// as propeller.
func TestMain(m *testing.M) {
	if jetstreamtest.Main() {
		return
	}
	switch os.Getenv("PROPELLER_TEST_MAIN") {
	case "1":
		main()
		return
	case "as-init":
		becomeInit()
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // they wait more than they work
	os.Exit(m.Run())
}

const (
	topic    = "com.example.app"
	patience = 2 * time.Minute
)

func program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	// The race detector lets a program wait a second before it ends, unless told otherwise.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=0"}, append(os.Environ(), "PROPELLER_TEST_MAIN=1")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// result of a program that has ended.
type result struct {
	out, err string
	status   int
}

func runProgram(t *testing.T, dir string, stdin string, args ...string) result {
	t.Helper()
	cmd := program(args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// daemonProcess is a running propeller.
type daemonProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}

	mu    sync.Mutex
	lines []string
}

func startDaemon(t *testing.T, dir string, args ...string) *daemonProcess {
	t.Helper()
	d, err := startProgram(t, dir, program(args...))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// startProgram starts a program made by program as a daemon.
func startProgram(t *testing.T, dir string, cmd *exec.Cmd) (*daemonProcess, error) {
	t.Helper()
	d := &daemonProcess{t: t, cmd: cmd, ended: make(chan struct{})}
	d.cmd.Dir = dir
	out, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			d.mu.Unlock()
		}
		_ = d.cmd.Wait() // the tests look at ProcessState
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.ended
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", d.log())
		}
	})
	return d, nil
}

func (d *daemonProcess) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n")
}

func (d *daemonProcess) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemonProcess) says(text string) {
	d.t.Helper()
	until(d.t, "the daemon says "+text, func() bool { return strings.Contains(d.log(), text) })
}

// exit waits for the end and returns the status.
func (d *daemonProcess) exit() int {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatal("the daemon does not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func token(i int) string { return fmt.Sprintf("%064x", i) }

// site is a folder with a configuration, a beanstalkd and an APNs stand-in.
type site struct {
	t    *testing.T
	dir  string
	bs   *beanstalktest.Server
	apns *apnstest.Server
}

func newSite(t *testing.T, o apnstest.Options) *site {
	t.Helper()
	t.Parallel()
	s := &site{t: t, dir: t.TempDir(), bs: beanstalktest.Start(t), apns: apnstest.NewServer(o)}
	t.Cleanup(s.apns.Close)
	s.write("ca.pem", string(s.apns.CACertPEM()))
	s.cert(topic)
	s.configure(topic)
	return s
}

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) cert(topic string) { s.write(topic+".pem", string(s.apns.ClientCertPEM(topic))) }

func (s *site) configure(topics ...string) {
	text := "queue: " + s.bs.URL() + "\nshutdown_timeout: 30s\nlog: {pushes: all}\ndefaults: {server: " + s.apns.URL + ", ca_file: ca.pem, in_flight: 200}\napps:\n"
	for _, topic := range topics {
		text += "  - {topic: " + topic + ", cert: " + topic + ".pem}\n"
	}
	s.write("propeller.yaml", text)
}

// putByHand speaks beanstalkd's protocol over a plain socket, as a shell with
// netcat does. It returns the job's id.
func (s *site) putByHand(tube, body string) (id string) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.bs.Addr())
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "use %s\r\nput 0 0 60 %d\r\n%s\r\n", tube, len(body), body)
	r := bufio.NewReader(c)
	for _, want := range []string{"USING " + tube, "INSERTED "} {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			s.t.Fatalf("%q, %v; want %q", line, err, want)
		}
		id = strings.TrimSpace(strings.TrimPrefix(line, want))
	}
	return id
}

// The whole life of a daemon: started, a push by send and one by hand, HUPed
// with a new app, with a broken file, TERMed.
func TestLifeOfADaemon(t *testing.T) {
	s := newSite(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	d := startDaemon(t, s.dir)
	r := runProgram(t, s.dir, "", "send", "--topic", topic, "--token", token(1), "--title", "Hi", "--body", "there", "--badge", "3", "--ref", "order 7")
	if r.status != 0 || strings.TrimSpace(r.out) != "1" {
		t.Fatalf("send: %+v", r)
	}
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
	req := s.apns.Requests()[0]
	if got, want := string(req.Body), `{"aps":{"alert":{"title":"Hi","body":"there"},"badge":3}}`; got != want || req.Token != token(1) {
		t.Errorf("token %s, body %s", req.Token, got)
	}
	d.says("class=delivered")
	for _, want := range []string{"app=" + topic, "topic=" + topic, "worker=0", "job=1", "token=00000000 ", "status=200", "apns_id=", "ms=", `ref="order 7"`} {
		if !strings.Contains(d.log(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	if strings.Contains(d.log(), token(1)) || strings.Contains(d.log(), "there") {
		t.Error("the log shows a whole token or a payload")
	}

	s.putByHand(topic, `{"token":"`+token(2)+`","title":null,"body":"by hand","badge":null}`)
	until(t, "the second push arrives", func() bool { return s.apns.Count() == 2 })

	const second = "com.example.second"
	s.cert(second)
	s.configure(topic, second)
	d.signal(syscall.SIGHUP)
	d.says("msg=reloaded apps=2")
	s.putByHand(second, `{"token":"`+token(3)+`","body":"x"}`)
	until(t, "the new app's push arrives", func() bool { return s.apns.Count() == 3 })

	s.write("propeller.yaml", "apps:\n  - {topic: x, colour: red}\n  - {topic: x}\n")
	d.signal(syscall.SIGHUP)
	for _, fault := range []string{"2: apps[0].colour", "2: apps[0].cert", "3: apps[1].topic"} {
		d.says(`msg="reload refused, nothing is changed" fault="propeller.yaml:` + fault)
	}
	s.putByHand(second, `{"token":"`+token(4)+`","body":"x"}`)
	until(t, "the broken file has changed nothing", func() bool { return s.apns.Count() == 4 })

	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d after SIGTERM", status)
	}
}

// SIGTERM with 200 in flight: all are finished and their jobs deleted.
func TestTermWith200InFlight(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	release := make(chan struct{})
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	s.apns.SetScript(func(r *apnstest.Request) apnstest.Answer {
		if r.Stream > 1 {
			return apnstest.Answer{Delay: 2 * time.Second}
		}
		return apnstest.Answer{}
	})
	for i := range 1000 {
		s.putByHand(topic, `{"token":"`+token(i)+`","title":"x"}`)
	}
	d := startDaemon(t, s.dir)
	until(t, "200 in flight", func() bool { return s.apns.Count() == 201 })
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
	if n := s.apns.Answered(); n != s.apns.Count() {
		t.Errorf("%d of %d answered", n, s.apns.Count())
	}
	stats, err := s.bs.Dial().Stats()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := stats["current-jobs-ready"], fmt.Sprint(1000-s.apns.Count()); got != want {
		t.Errorf("%s jobs left, want %s", got, want)
	}
}

func TestSecondSignalQuits(t *testing.T) {
	s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Silence: true})})
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	d := startDaemon(t, s.dir)
	until(t, "one in flight", func() bool { return s.apns.Count() == 1 })
	d.signal(syscall.SIGINT)
	d.says("msg=stopping")
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 1 {
		t.Errorf("status %d after the second signal, want 1", status)
	}
}

// One app from the command line, as the Python worker was started.
func TestOneAppWithoutAFile(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	d := startDaemon(t, t.TempDir(), "run", "--topic", topic, "--cert", filepath.Join(s.dir, topic+".pem"),
		"--server", s.apns.URL, "--ca-file", filepath.Join(s.dir, "ca.pem"), "--queue", s.bs.URL())
	r := runProgram(t, t.TempDir(), `{"token":"`+token(5)+`","payload":{"aps":{"alert":"x"},"k":1}}`, "send", "--queue", s.bs.URL(), "--topic", topic, "--json", "-")
	if r.status != 0 {
		t.Fatalf("send: %+v", r)
	}
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
	if body := string(s.apns.Requests()[0].Body); body != `{"aps":{"alert":"x"},"k":1}` {
		t.Errorf("body %s", body)
	}
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	r := runProgram(t, s.dir, "", "check")
	if r.status != 0 || !strings.Contains(r.out, topic) || !strings.Contains(r.out, "ok\n") || !strings.Contains(r.out, "not an Apple push certificate") {
		t.Errorf("check: %+v", r)
	}
	s.write("propeller.yaml", "queue: http://x\napps:\n  - {topic: a.b, cert: missing.pem, workers: 0}\n")
	r = runProgram(t, s.dir, "", "check")
	if r.status != 1 || strings.Count(r.err, "propeller.yaml:") != 3 {
		t.Errorf("check of three faults: status %d\n%s", r.status, r.err)
	}
	for dir, says := range map[string]string{"not/there/yet": "", "propeller.yaml/x": "cannot be created: not a directory"} {
		s.write("propeller.yaml", "state_dir: "+dir+"\napps: [{topic: a.b, server: mock}]\n")
		r = runProgram(t, s.dir, "", "check")
		if r.status != 0 || strings.Contains(r.out, "cannot be created") != (says != "") || !strings.Contains(r.out, says) || !missing(filepath.Join(s.dir, "not")) {
			t.Errorf("state_dir %s: %+v", dir, r)
		}
	}
}

// Wrong use and bad input end with the right status and one line that names
// the value.
func TestFaultsOfTheCommandLine(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	tests := []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{"frobnicate"}, 2, `"frobnicate"`},
		{[]string{"staus"}, 2, `unknown command "staus": did you mean status? (see propeller --help)`},
		{[]string{"jobs", "lst"}, 2, `unknown command "lst": did you mean list? (see propeller jobs --help)`},
		{[]string{"jobs", "kick"}, 2, "(see propeller jobs kick --help)"},
		{[]string{"jobs", "kick", "--topic", "x"}, 2, "one of these is required: --id, --reason, --all"},
		{[]string{"jobs", "delete", "--topic", "x", "--reason", "", "--queue", "beanstalk://127.0.0.1:1"}, 2, "must say which jobs"},
		{[]string{"jobs", "list", "--topic", ""}, 2, "--topic is empty"},
		{[]string{"jobs", "move", "--from", "beanstalk://a"}, 2, "--to is required"},
		{[]string{"jobs", "list", "--topic"}, 2, "(see propeller jobs list --help)"},
		{[]string{"jobs", "kick", "--topic", "x", "--all", "--id", "1", "--queue", "beanstalk://127.0.0.1:1"}, 2, "only one of these may be given: --all, --id (see propeller jobs kick --help)"},
		{[]string{"help", "nonsense"}, 2, `"nonsense"`},
		{[]string{"run", "--frob"}, 2, "--frob"},
		{[]string{"run", "extra"}, 2, `"extra"`},
		{[]string{"run", "--server", "mock"}, 2, "--topic"},
		{[]string{"run", "--topic", "x", "-c", "y"}, 2, "--config"},
		{[]string{"run", "--topic", "com.example.x", "--server", "mock", "--workers", "0"}, 1, `--workers "0"`},
		{[]string{"run"}, 1, "no propeller.yaml"},
		{[]string{}, 1, "no propeller.yaml"},
		{[]string{"run", "-c", "nowhere.yaml"}, 1, "nowhere.yaml"},
		{[]string{"check"}, 1, "no propeller.yaml"},
		{[]string{"send"}, 2, "one of these is required: --app, --topic"},
		{[]string{"send", "--topic", "x"}, 1, "token: missing"},
		{[]string{"send", "--topic", "x", "--token", "zz"}, 1, "token"},
		{[]string{"send", "--topic", "x", "--token", token(1), "--data", "{"}, 2, "--data"},
		{[]string{"send", "--topic", "x", "--token", token(1), "--json", "-"}, 2, "--json"},
		{[]string{"send", "--topic", "x", "--token", token(1), "--delay", "-1s"}, 2, "--delay"},
		{[]string{"send", "--topic", "x", "--token", token(1), "--priority", "7"}, 1, "priority"},
		{[]string{"send", "--topic", "x", "--token", token(1)}, 1, "no propeller.yaml"},
		{[]string{"send", "--topic", "x", "--token", token(1), "--queue", "http://x"}, 1, "http://x"},
		{[]string{"send", "--topic", "x", "--token", token(1), "--title", "x", "--queue", "beanstalk://127.0.0.1:1"}, 1, "start the queue server"},
		{[]string{"apns-sim", "--fault", "nonsense"}, 2, `"nonsense"`},
		{[]string{"apns-sim", "--listen", "256.0.0.1:1"}, 1, "256.0.0.1:1"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			r := runProgram(t, empty, "", test.args...)
			if r.status != test.status {
				t.Errorf("status %d, want %d", r.status, test.status)
			}
			if !strings.Contains(r.err, test.say) || strings.Count(r.err, "\n") != 1 {
				t.Errorf("says %q, want one line with %q", r.err, test.say)
			}
		})
	}
}

// What is the daemon's own in a job, nobody sends.
func TestSendRefusesAgain(t *testing.T) {
	t.Parallel()
	forged := `{"tokens":["` + token(1) + `"],"title":"x","again":{"job":"1","seed":"` + strings.Repeat("0", 32) + `","put":1,"attempt":1}}`
	r := runProgram(t, t.TempDir(), forged, "send", "--topic", topic, "--queue", "beanstalk://127.0.0.1:1", "--json", "-")
	if r.status != 1 || !strings.Contains(r.err, "again") {
		t.Errorf("%+v", r)
	}
}

// The shell completes commands, flags, and the topics of the configuration.
func TestCompletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "propeller.yaml"), []byte("apps: [{topic: com.example.one, cert: nowhere.pem}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{"send --topic ": "com.example.one\n", "send --app ": "com.example.one\n", "jobs li": "list\t", "run --log-p": "--log-pushes\t"} {
		r := runProgram(t, dir, "", append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if r.status != 0 || !strings.HasPrefix(r.out, want) {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if r := runProgram(t, dir, "", "completion", "bash"); r.status != 0 || !strings.Contains(r.out, "__start_propeller") {
		t.Errorf("bash: %d, %.100s", r.status, r.out+r.err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if r := runProgram(t, t.TempDir(), "", "version"); r.status != 0 || !strings.HasPrefix(r.out, "propeller ") {
		t.Errorf("%+v", r)
	}
}

// The stand-in by itself, its certificates used by a daemon.
func TestSim(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bs := beanstalktest.Start(t)
	sim := program("apns-sim", "--listen", "127.0.0.1:0", "--dir", dir, "--topic", topic, "--fault", "status=410,nth=2")
	out, err := sim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	t.Cleanup(func() {
		_ = sim.Process.Signal(syscall.SIGTERM)
		if err := sim.Wait(); err != nil {
			t.Errorf("apns-sim: %v", err)
		}
	})
	first := <-lines
	_, url, ok := strings.Cut(first, " at ")
	if !ok {
		t.Fatalf("first line %q", first)
	}
	d := startDaemon(t, dir, "run", "--topic", topic, "--cert", topic+".pem", "--ca-file", "ca.pem", "--server", url, "--queue", bs.URL(), "--log-pushes", "all")
	for i := range 3 {
		if r := runProgram(t, dir, "", "send", "--queue", bs.URL(), "--topic", topic, "--token", token(i), "--title", "x"); r.status != 0 {
			t.Fatalf("send: %+v", r)
		}
	}
	until(t, "two delivered, one gone", func() bool {
		return strings.Count(d.log(), "class=delivered") == 2 && strings.Count(d.log(), "status=410") == 1
	})
	for line := range lines {
		if strings.Contains(line, "requests 3") {
			break
		}
	}
}

// Who only puts jobs needs no access to certificates and secrets.
func TestSendNeedsNoCredentials(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.write("propeller.yaml", "queue: "+s.bs.URL()+"\napps:\n  - {topic: "+topic+", tube: other, cert: /nowhere/x.p12, cert_password: \"${PROPELLER_TEST_UNSET}\"}\n")
	if r := runProgram(t, s.dir, "", "send", "--topic", topic, "--token", token(1), "--title", "x"); r.status != 0 || r.out != "1\n" {
		t.Errorf("send: %+v", r)
	}
	if _, body, err := s.bs.Dial().Reserve(0); err == nil {
		t.Errorf("in the wrong tube: %s", body)
	}
	if r := runProgram(t, s.dir, "", "send", "--topic", "com.example.none", "--token", token(1), "--title", "x"); r.status != 1 || !strings.Contains(r.err, `"com.example.none"`) {
		t.Errorf("send for a topic that is not there: %+v", r)
	}
}
