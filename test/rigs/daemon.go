package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"propeller/internal/bench"
	"propeller/internal/heldport"
)

// daemon is the built program as a process of its own, with a folder and a queue of its own.
type daemon struct {
	dir, bin string
	addr     string // of its HTTP API
	key      string
	client   *http.Client
	queue    *servers
	port     *heldport.Port

	cmd   *exec.Cmd // nil while it does not run
	ended chan struct{}
	begun time.Time
}

const (
	configFile = "propeller.yaml"
	logFile    = "propeller.log"
	// daemonTime bounds what a daemon may take for one thing, as a start with 10,000 apps.
	daemonTime = 5 * time.Minute
)

// newDaemon starts a queue for a daemon, which does not run yet.
func newDaemon(kind, bin string) (d *daemon, err error) {
	d = &daemon{bin: bin, key: bench.RandomHex(16), client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}, Timeout: daemonTime,
	}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.dir, err = os.MkdirTemp("", "propeller-rigs-"); err != nil {
		return nil, err
	}
	if d.port, err = heldport.New(); err != nil {
		return nil, err
	}
	d.addr = d.port.Addr()
	d.queue, err = startServers(kind)
	return d, err
}

// buildDaemon builds this tree's daemon in a folder.
func buildDaemon(ctx context.Context, dir string) (bin string, err error) {
	bin = filepath.Join(dir, "propeller")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "propeller/cmd/propeller").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return bin, nil
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// configure writes the configuration: what comes after the keys that every daemon here has.
func (d *daemon) configure(rest string) error {
	head := fmt.Sprintf(`queue: %s
state_dir: %s
http: {listen: "%s", auth_token: %s}
log: {format: json, pushes: none}
`, d.queue.url, d.path("state"), d.addr, d.key)
	return os.WriteFile(d.path(configFile), []byte(head+rest), 0o600)
}

// start runs the process. It does not wait until that answers.
func (d *daemon) start() error {
	log, err := os.OpenFile(d.path(logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(d.bin, "run", "-c", d.path(configFile))
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, child()
	d.begun = time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in ProcessState
	}(d.ended)
	return nil
}

// stop tells it to end, and waits for that.
func (d *daemon) stop() (took time.Duration, err error) {
	begun := time.Now()
	cmd := d.cmd
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-d.ended:
	case <-time.After(daemonTime):
		return 0, fmt.Errorf("it has not ended after %v", daemonTime)
	}
	took, d.cmd = time.Since(begun), nil
	if !cmd.ProcessState.Success() {
		err = fmt.Errorf("it ended after %v with %v: %s", took, cmd.ProcessState, d.lastLine())
	}
	return took, err
}

// close ends everything and removes the folder.
func (d *daemon) close() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill() // of no effect on one that has ended
		<-d.ended
		d.cmd = nil
	}
	d.client.CloseIdleConnections()
	if d.queue != nil {
		d.queue.close()
	}
	if d.port != nil {
		d.port.Close()
	}
	_ = os.RemoveAll(d.dir) // it is in the system's folder for such
}

// freeze stops the process until it is to go on.
func (d *daemon) freeze(still bool) error {
	if still {
		return d.cmd.Process.Signal(syscall.SIGSTOP)
	}
	return d.cmd.Process.Signal(syscall.SIGCONT)
}

// alive says why the process runs no longer; nil while it does.
func (d *daemon) alive() error {
	if d.cmd == nil {
		return errors.New("the daemon does not run")
	}
	select {
	case <-d.ended:
		return fmt.Errorf("the daemon has ended with %v: %s", d.cmd.ProcessState, d.lastLine())
	default:
		return nil
	}
}

// lastLine is the last line of the daemon's log.
func (d *daemon) lastLine() string {
	log, err := os.ReadFile(d.path(logFile))
	if err != nil {
		return err.Error()
	}
	log = bytes.TrimSpace(log)
	line := string(log[bytes.LastIndexByte(log, '\n')+1:])
	return line[:min(len(line), 300)]
}

// ask sends a request, and returns the answer's status and body.
func (d *daemon) ask(ctx context.Context, method, path, kind string, body []byte) (status int, answer []byte, err error) {
	if err := d.alive(); err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.addr+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+d.key)
	req.Header.Set("Content-Type", kind)
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// must is ask for an answer of 2xx.
func (d *daemon) must(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	status, answer, err := d.ask(ctx, method, path, kind, body)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s %s: %d: %.300s", method, path, status, bytes.TrimSpace(answer))
	}
	return answer, err
}

// put puts a job over HTTP: its fields, and whose it is.
func (d *daemon) put(ctx context.Context, whose string, fields []byte) error {
	_, err := d.must(ctx, http.MethodPost, "/v1/notifications", "application/json", notification(whose, fields))
	return err
}

// notification is a job as the HTTP API takes it; whose is a member such as "topic":"…".
func notification(whose string, fields []byte) []byte {
	return fmt.Appendf(nil, `{%s,%s}`, whose, fields)
}

// ready waits until GET /readyz/apps has nothing to say against any app.
func (d *daemon) ready(ctx context.Context, most time.Duration) error {
	for end := time.Now().Add(most); ; {
		status, answer, err := d.ask(ctx, http.MethodGet, "/readyz/apps", "", nil)
		switch {
		case err == nil && status == http.StatusOK:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("some apps are not ready after %v: %.300s %w", most, strings.TrimSpace(string(answer)), errors.Join(err))
		case d.alive() != nil:
			return d.alive()
		}
		if err := bench.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// used is what a process has.
type used struct {
	residentMiB float64
	files       int
	cpu         time.Duration // since it began
}

func usedBy(pid int) (u used, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return u, err
	}
	stat, err := p.Stat()
	if err != nil {
		return u, err
	}
	status, err := p.NewStatus()
	if err != nil {
		return u, err
	}
	u.residentMiB, u.cpu = float64(status.VmRSS)/(1<<20), time.Duration(stat.CPUTime()*float64(time.Second))
	u.files, err = p.FileDescriptorsLen()
	return u, err
}

// use is what the daemon uses.
func (d *daemon) use() (used, error) {
	if err := d.alive(); err != nil {
		return used{}, err
	}
	return usedBy(d.cmd.Process.Pid)
}

// cores measures which share of a core the daemon takes, and the queue's servers do.
func (d *daemon) cores(ctx context.Context, over time.Duration) (own, servers float64, err error) {
	sum := func() (own, servers time.Duration, err error) {
		u, err := d.use()
		if err != nil {
			return 0, 0, err
		}
		for _, pid := range d.queue.pids {
			s, err := usedBy(pid)
			if err != nil {
				return 0, 0, err
			}
			servers += s.cpu
		}
		return u.cpu, servers, nil
	}
	begun := time.Now()
	own1, servers1, err := sum()
	if err != nil {
		return 0, 0, err
	}
	if err := bench.Pause(ctx, over); err != nil {
		return 0, 0, err
	}
	own2, servers2, err := sum()
	took := time.Since(begun)
	return float64(own2-own1) / float64(took), float64(servers2-servers1) / float64(took), err
}
