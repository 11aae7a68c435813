package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"propeller/internal/apnslean"
)

// standIn is the APNs side of a run, a process of its own, so that its processor
// time is told apart. It writes its address, and for each line that it reads what
// it has seen since the line before.
type standIn struct {
	standInAddress
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

type standInAddress struct{ Addr, Cert string }

type standInReport struct {
	CPU                   time.Duration
	Timed                 int64 // requests whose way from their put was timed
	P50, P99, Max         time.Duration
	Active, Blocked, Open time.Duration // see apnslean.Stats
}

// ServeStandIn is the stand-in's process, with the plan's RTT and AckAtOnce. It
// ends when its input does.
func (p *Plan) ServeStandIn(in io.Reader, out io.Writer) error {
	s, err := apnslean.Start(apnslean.Options{Delay: p.RTT, DelayWindow: !p.AckAtOnce})
	if err != nil {
		return err
	}
	defer s.Close()
	reports := json.NewEncoder(out)
	if err := reports.Encode(standInAddress{s.Addr(), string(s.CertPEM())}); err != nil {
		return err
	}
	asked := bufio.NewScanner(in)
	for since := processCPU(); asked.Scan(); since = processCPU() {
		st := s.Stats()
		s.Reset()
		h := &st.Latency
		err := reports.Encode(standInReport{
			CPU: processCPU() - since, Timed: h.Count, P50: h.Quantile(0.5), P99: h.Quantile(0.99), Max: h.Max,
			Active: st.Active, Blocked: st.Blocked, Open: st.Open,
		})
		if err != nil {
			return err
		}
	}
	return asked.Err()
}

// startStandIn starts this program once more.
func startStandIn(p *Plan) (*standIn, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "bench", "--stand-in", "--rtt", p.RTT.String(), "--ack-at-once="+strconv.FormatBool(p.AckAtOnce))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it: it is needed until the end
	s := &standIn{cmd: cmd}
	if s.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = json.NewDecoder(stdout)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.read(&s.standInAddress); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// standInTime bounds the wait for the stand-in.
const standInTime = 20 * time.Second

// read takes the next line of the stand-in. A stand-in that is stuck is killed,
// which ends the wait.
func (s *standIn) read(line any) error {
	defer time.AfterFunc(standInTime, func() { _ = s.cmd.Process.Kill() }).Stop()
	if err := s.out.Decode(line); err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	return nil
}

// report says what the stand-in has seen since it was asked last.
func (s *standIn) report() (r standInReport, err error) {
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		return r, fmt.Errorf("stand-in: %w", err)
	}
	return r, s.read(&r)
}

func (s *standIn) close() error {
	_ = s.in.Close() // which tells it to end
	defer time.AfterFunc(standInTime, func() { _ = s.cmd.Process.Kill() }).Stop()
	return s.cmd.Wait()
}

// Usage is what a measurement has taken.
type Usage struct {
	Time      time.Duration // that has passed
	CPU       time.Duration // of this process
	Idle      time.Duration // the machine's cores, together
	IdleKnown bool
}

// Measure begins a measurement, which used ends.
func Measure() (used func() Usage) {
	begun, cpu := time.Now(), processCPU()
	idle, known := machineIdle()
	return func() Usage {
		u := Usage{Time: time.Since(begun), CPU: processCPU() - cpu}
		now, stillKnown := machineIdle()
		u.Idle, u.IdleKnown = now-idle, known && stillKnown
		return u
	}
}

// Per is d for each of n, in µs.
func Per(d time.Duration, n int64) float64 {
	return float64(d) / float64(time.Microsecond) / float64(n)
}

// processCPU is the user and system time that this process has used so far.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot happen: both arguments are valid
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineIdle is for how long the machine's cores have been idle, all together,
// since it was booted; false where there is no /proc.
func machineIdle() (time.Duration, bool) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, false
	}
	stat, err := fs.Stat()
	if err != nil {
		return 0, false
	}
	return time.Duration((stat.CPUTotal.Idle + stat.CPUTotal.Iowait) * float64(time.Second)), true
}

// forgetPeak resets peakMemory, where the system allows it.
func forgetPeak() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // man proc_pid_clear_refs
}

// peakMemory is the most memory that this process had resident, in bytes; 0 where
// there is no /proc.
func peakMemory() uint64 {
	self, err := procfs.Self()
	if err != nil {
		return 0
	}
	status, err := self.NewStatus()
	if err != nil {
		return 0
	}
	return status.VmHWM
}
