package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"propeller/apnsconn/apnstest"
)

// becomeInit turns this process into propeller as it runs under a container's
// shell: with an orphan that it never started, which lives until file
// descriptor 3 ends, and one that has ended already. Both came while another
// program ran in this process.
func becomeInit() {
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fail(err)
		}
	}
	// The shell ends at once; cat stays, for whoever is there to inherit it.
	parent := exec.Command("sh", "-c", "cat <&3 >/dev/null 2>&1 &")
	parent.ExtraFiles = []*os.File{os.NewFile(3, "life")}
	if err := parent.Run(); err != nil {
		fail(err)
	}
	if err := exec.Command("true").Start(); err != nil { // nobody waits for it
		fail(err)
	}
	syscall.CloseOnExec(3)
	if err := os.Setenv("PROPELLER_TEST_MAIN", "1"); err != nil {
		fail(err)
	}
	fail(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "becoming init:", err)
	os.Exit(exitFailed)
}

// startInit starts the daemon with orphans; closing life ends the last of them.
func startInit(t *testing.T, s *site, flags uintptr) (d *daemonProcess, life io.Closer, err error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	cmd := program()
	cmd.Env = append(cmd.Env, "PROPELLER_TEST_MAIN=as-init")
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr.Cloneflags = flags
	if flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	d, err = startProgram(t, s.dir, cmd)
	return d, w, err
}

// startProcess1 starts it as process 1 of a namespace of its own, as root or
// else by way of a user namespace.
func startProcess1(t *testing.T, s *site) (*daemonProcess, io.Closer) {
	t.Helper()
	d, life, err := startInit(t, s, syscall.CLONE_NEWPID)
	if errors.Is(err, syscall.EPERM) {
		d, life, err = startInit(t, s, syscall.CLONE_NEWUSER|syscall.CLONE_NEWPID)
	}
	switch {
	case err == nil:
		until(t, "the daemon is process 1", func() bool { return strings.Contains(d.log()+"\n", " pid=1\n") })
		return d, life
	// clone(2): not allowed, not built in, or none left.
	case !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOSPC):
		t.Fatal(err)
	}
	t.Logf("NOT TESTED as process 1, since this kernel gives no namespace: %v; tested as a child subreaper", err)
	return startSubreaper(t, s)
}

func startSubreaper(t *testing.T, s *site) (*daemonProcess, io.Closer) {
	t.Helper()
	d, life, err := startInit(t, s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d, life
}

// children are the states (proc_pid_stat(5): S, Z …) of a process' children by name.
func children(t *testing.T, pid int) map[string]string {
	t.Helper()
	out := make(map[string]string)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no /proc: %v", err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has gone
		}
		open, end := strings.IndexByte(string(data), '('), strings.LastIndexByte(string(data), ')')
		fields := strings.Fields(string(data[end+1:]))
		if fields[1] == fmt.Sprint(pid) {
			out[string(data[open+1:end])] = fields[0]
		}
	}
	return out
}

// Where orphans end up with the daemon, no zombie stays; SIGTERM drains, and
// the status tells how it ended.
func TestOrphansAreReaped(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *site) (*daemonProcess, io.Closer){
		"process 1": startProcess1, "child subreaper": startSubreaper,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, apnstest.Options{Delay: time.Second})
			d, life := start(t, s)
			pid := d.cmd.Process.Pid
			until(t, "the zombie from before is reaped, the other orphan lives", func() bool {
				c := children(t, pid)
				return len(c) == 1 && c["cat"] == "S"
			})
			life.Close()
			until(t, "the orphan is reaped", func() bool { return len(children(t, pid)) == 0 })

			s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
			until(t, "one in flight", func() bool { return s.apns.Count() == 1 })
			d.signal(syscall.SIGTERM)
			if status := d.exit(); status != 0 {
				t.Errorf("status %d after SIGTERM", status)
			}
			stats, err := s.bs.Dial().Stats()
			if err != nil {
				t.Fatal(err)
			}
			if s.apns.Answered() != 1 || stats["current-jobs-ready"] != "0" {
				t.Errorf("%d answered, %s jobs left", s.apns.Answered(), stats["current-jobs-ready"])
			}
		})
	}
}
