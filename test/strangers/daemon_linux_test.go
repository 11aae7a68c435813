package strangers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

// daemon is a propeller that runs, with the queue inside it.
type daemon struct {
	t    *testing.T
	addr string
	pid  int

	mu  sync.Mutex
	log bytes.Buffer
}

func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

const settings = `queue: embedded://./queue
http:
  listen: 127.0.0.1:0
  auth_token: right-0123456789
  tls_cert: web.pem
  tls_key: web.pem
apps:
  - {topic: com.example.a, server: mock}
  - {topic: com.example.b, server: mock}
  - {topic: com.example.c, server: mock}
`

// start builds the daemon, without the race detector's memory, unless STRANGERS_DAEMON
// names one, and runs it with so many descriptors at most; 0: as many as there are.
func start(t *testing.T, descriptors int) *daemon {
	t.Helper()
	dir := t.TempDir()
	bin := os.Getenv("STRANGERS_DAEMON")
	if bin == "" {
		bin = filepath.Join(dir, "propeller")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "propeller/cmd/propeller").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v: %s", err, out)
		}
	}
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	for name, text := range map[string][]byte{"web.pem": apns.ClientCertPEM("x"), "propeller.yaml": []byte(settings)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := &daemon{t: t}
	cmd := exec.Command(bin, "run", "-c", "propeller.yaml")
	if descriptors > 0 {
		cmd = exec.Command("sh", "-c", fmt.Sprintf("ulimit -n %d && exec %s run -c propeller.yaml", descriptors, bin))
	}
	cmd.Dir, cmd.Stderr = dir, d
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			text := d.text()
			t.Logf("the daemon's log ends:\n%s", text[max(0, len(text)-4000):])
		}
	})
	listens := regexp.MustCompile(`http listens" addr=(\S+)`)
	for end := time.Now().Add(time.Minute); d.addr == ""; time.Sleep(10 * time.Millisecond) {
		if m := listens.FindStringSubmatch(d.text()); m != nil {
			d.addr = m[1]
		}
		if time.Now().After(end) {
			t.Fatal("the daemon does not listen")
		}
	}
	return d
}

// memory is what of the daemon is in RAM, and the most that has been since the last
// time, in MiB.
func (d *daemon) memory() (now, most int) {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid))
	if err != nil {
		d.t.Fatal(err)
	}
	read := func(name string) int {
		_, rest, _ := strings.Cut(string(text), name+":")
		kb, err := strconv.Atoi(strings.Fields(rest + " x")[0])
		if err != nil {
			d.t.Fatal(err)
		}
		return kb >> 10
	}
	now, most = read("VmRSS"), read("VmHWM")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.pid), []byte("5"), 0); err != nil { // proc(5)
		d.t.Fatal(err)
	}
	return now, most
}
