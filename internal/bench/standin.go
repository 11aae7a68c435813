package bench

import (
	"bufio"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"propeller/internal/apnslean"
)

// simName is the value of --apns that asks for the stand-in.
const simName = "sim"

// benchAPNs is the APNs side of a run.
type benchAPNs struct {
	what  string
	addr  string // host:port
	roots *x509.CertPool

	// The stand-in's process; nil for another server.
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// standInOrder is what the stand-in's process is told: first how to start, then
// by a line each to say what it has seen, or to forget it.
type standInOrder struct {
	Options *apnslean.Options `json:",omitempty"`
	Reset   bool              `json:",omitempty"`
}

// standInReport is what it says after each order.
type standInReport struct {
	Addr, Cert string `json:",omitempty"` // after the first

	CPU                   time.Duration
	Conns                 int
	Requests, Timed       int64
	P50, P99, Max         time.Duration
	Active, Blocked, Open time.Duration // see apnslean.Stats
}

// serveStandIn is the stand-in's process. It ends when its input does.
func serveStandIn(in io.Reader, out io.Writer) error {
	orders, reports := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var first standInOrder
	if err := orders.Decode(&first); err != nil || first.Options == nil {
		return fmt.Errorf("--stand-in is for bench itself: no options on standard input: %w", err)
	}
	s, err := apnslean.Start(*first.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	report := standInReport{Addr: s.Addr(), Cert: string(s.CertPEM())}
	for {
		if err := reports.Encode(report); err != nil {
			return err
		}
		var o standInOrder
		switch err := orders.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if o.Reset {
			s.Reset()
		}
		report = newStandInReport(s.Stats())
	}
}

func newStandInReport(st apnslean.Stats) standInReport {
	h := &st.Latency
	return standInReport{
		CPU: processCPU(), Conns: st.Conns, Requests: st.Requests,
		Timed: h.Count, P50: h.Quantile(0.5), P99: h.Quantile(0.99), Max: h.Max,
		Active: st.Active, Blocked: st.Blocked, Open: st.Open,
	}
}

// processCPU is the user and system time that this process has used so far.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot happen: both arguments are valid
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// openBenchAPNs starts the stand-in, or says how to reach another server.
func (p *benchPlan) openBenchAPNs(o apnslean.Options) (*benchAPNs, error) {
	if p.apns == simName {
		return startStandIn(o)
	}
	u, err := url.Parse(p.apns)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, p.usage(fmt.Errorf("--apns %q: must be sim or https://host:port", p.apns))
	}
	if host := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")); host == "apple.com" || strings.HasSuffix(host, ".apple.com") {
		return nil, p.usage(errors.New("--apns: bench sends to tokens that it made up, which is not for Apple's servers"))
	}
	a := &benchAPNs{what: p.apns, addr: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))}
	if p.caFile == "" {
		return a, nil
	}
	pem, err := os.ReadFile(p.caFile)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	a.roots = x509.NewCertPool()
	if !a.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file %q: holds no certificate", p.caFile)
	}
	return a, nil
}

// standInTime bounds the stand-in's answers over its pipe.
const standInTime = 20 * time.Second

func startStandIn(o apnslean.Options) (*benchAPNs, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "bench", "--stand-in")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = endWithParent()
	a := &benchAPNs{cmd: cmd, what: "stand-in"}
	if a.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.out = json.NewDecoder(stdout)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	hello, err := a.ask(standInOrder{Options: &o})
	if err == nil {
		a.addr, a.roots = hello.Addr, x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM([]byte(hello.Cert)) {
			err = errors.New("no certificate")
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stand-in: %w", err), a.close())
	}
	return a, nil
}

// ask sends an order to the stand-in and returns its report.
func (a *benchAPNs) ask(o standInOrder) (r standInReport, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), standInTime)
	defer cancel()
	// A process that is stuck is ended, which ends the wait for its answer.
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			_ = a.cmd.Process.Kill()
		}
	})()
	if err := json.NewEncoder(a.in).Encode(o); err != nil {
		return r, err
	}
	return r, a.out.Decode(&r)
}

// report says what the APNs side has seen; nothing of another server.
func (a *benchAPNs) report(reset bool) (standInReport, error) {
	if a.cmd == nil {
		return standInReport{}, nil
	}
	r, err := a.ask(standInOrder{Reset: reset})
	if err != nil {
		return r, fmt.Errorf("stand-in: %w", err)
	}
	return r, nil
}

func (a *benchAPNs) close() error {
	if a.cmd == nil {
		return nil
	}
	_ = a.in.Close() // which tells it to end
	return a.cmd.Wait()
}
