package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"propeller/internal/text"
	"propeller/supervisor"
)

// notifier reports the daemon's state to the service manager that started it, by
// the protocol of sd_notify(3): datagrams of VAR=value lines to the socket that
// NOTIFY_SOCKET names. Without that variable its methods do nothing.
//
// What cannot be sent is logged and never stops the daemon. Its methods may be
// called from any goroutine.
type notifier struct {
	send     func(message string) error // nil: nobody listens
	watchdog time.Duration              // within which WATCHDOG=1 is awaited; 0: it is not
	log      *slog.Logger

	mu       sync.Mutex // held while sending, so that messages keep their order
	failing  bool       // the last message could not be sent
	status   string     // the last one sent
	stopping bool       // nothing but pings comes after STOPPING=1
}

// How long a message may wait for a service manager that does not read.
const notifyLimit = time.Second

// statusEvery is how often the status is looked at if there is no watchdog:
// soon enough for somebody who reads systemctl status.
const statusEvery = 10 * time.Second

// statusSize bounds a status in bytes: systemd reads messages of up to 4096
// and drops longer ones whole.
const statusSize = 1000

// The environment of sd_notify(3) and sd_watchdog_enabled(3).
const (
	envNotify      = "NOTIFY_SOCKET"
	envWatchdog    = "WATCHDOG_USEC"
	envWatchdogPID = "WATCHDOG_PID"
)

// takeNotifier makes the notifier that the environment asks for and removes
// the variables from it: they are meant for this process alone.
func takeNotifier(log *slog.Logger) *notifier {
	n := newNotifier(os.Getenv, os.Getpid(), log)
	for _, name := range []string{envNotify, envWatchdog, envWatchdogPID} {
		os.Unsetenv(name)
	}
	return n
}

func newNotifier(getenv func(string) string, pid int, log *slog.Logger) *notifier {
	n := &notifier{log: log}
	path := getenv(envNotify)
	if path == "" {
		return n
	}
	if path[0] != '/' && path[0] != '@' { // systemd has vsock: too, for machines
		log.Warn("cannot notify the service manager: NOTIFY_SOCKET is not a Unix socket", "NOTIFY_SOCKET", path)
		return n
	}
	n.send = func(message string) error { return sendTo(path, message) }
	var err error
	if n.watchdog, err = watchdogTime(getenv(envWatchdog), getenv(envWatchdogPID), pid); err != nil {
		log.Warn("cannot send pings to the service manager's watchdog", "err", err)
	}
	return n
}

// watchdogTime is the value of WATCHDOG_USEC, in microseconds, or 0 if there is
// none or WATCHDOG_PID says that it is for another process.
func watchdogTime(usec, forPID string, pid int) (time.Duration, error) {
	if usec == "" || forPID != "" && forPID != strconv.Itoa(pid) {
		return 0, nil
	}
	const most = int64(24 * time.Hour / time.Microsecond) // far from an overflow
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("WATCHDOG_USEC %q: not a number of microseconds above 0", usec)
	}
	return time.Duration(min(n, most)) * time.Microsecond, nil
}

// sendTo sends one datagram to the Unix socket at path; a leading @ means
// Linux' abstract namespace. It connects each time: the socket may be another
// one under the same name by then.
func sendTo(path, message string) (err error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyLimit)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}

// every is how often alive is to be called; 0 is never.
func (n *notifier) every() time.Duration {
	switch {
	case n.send == nil:
		return 0
	case n.watchdog > 0:
		// Half, as sd_watchdog_enabled(3) advises, and no faster than a ticker can go.
		return max(n.watchdog/2, time.Millisecond)
	default:
		return statusEvery
	}
}

// ready says that the daemon works, after its start or a reload, good or bad.
func (n *notifier) ready(status string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stopping {
		n.status = oneLine(status)
		n.tell("READY=1", "STATUS="+n.status)
	}
}

// reloading says that a reload begins; ready ends it.
func (n *notifier) reloading() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping || n.send == nil {
		return
	}
	lines := []string{"RELOADING=1"}
	if now, ok := monotonic(); ok {
		lines = append(lines, "MONOTONIC_USEC="+strconv.FormatInt(now.Microseconds(), 10))
	}
	n.tell(lines...)
}

// stop says that the daemon stops and needs up to the given time, which may be
// more than the unit's TimeoutStopSec.
func (n *notifier) stop(within time.Duration, status string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stopping {
		n.stopping = true
		n.tell("STOPPING=1", "EXTEND_TIMEOUT_USEC="+strconv.FormatInt(within.Microseconds(), 10), "STATUS="+oneLine(status))
	}
}

// alive is the watchdog's ping, and tells a status that has changed.
func (n *notifier) alive(status string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var lines []string
	if n.watchdog > 0 {
		lines = append(lines, "WATCHDOG=1")
	}
	if status = oneLine(status); !n.stopping && status != n.status {
		n.status = status
		lines = append(lines, "STATUS="+status)
	}
	if len(lines) > 0 {
		n.tell(lines...)
	}
}

// tell sends one message. It logs the first of several failures. The caller
// holds mu.
func (n *notifier) tell(lines ...string) {
	if n.send == nil {
		return
	}
	err := n.send(strings.Join(lines, "\n"))
	switch {
	case err != nil && !n.failing:
		n.log.Warn("cannot tell the service manager", "message", lines[0], "err", err)
	case err == nil && n.failing:
		n.log.Info("the service manager can be told again")
	}
	n.failing = err != nil
}

// oneLine makes a status of what may be anything, as a reason of APNs' is: a line of bounded size.
func oneLine(status string) string {
	status = text.Line(status)
	if len(status) > statusSize {
		status = strings.ToValidUTF8(status[:statusSize], "") + "…"
	}
	return status
}

// watchdogPing proves to the service manager that the daemon lives: at each tick it
// asks every app how it is and hands the answer to the main loop, which has it
// sent. A lock that is stuck anywhere in the tree, or a loop that does not turn,
// ends the pings; and a stuck lock leaves the loop free to heed signals.
func (d *daemon) watchdogPing(ctx context.Context, t tree) {
	every := d.notify.every()
	if every == 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		status := d.status(t)
		select {
		case <-ctx.Done():
			return
		case d.statuses <- status:
		}
	}
}

// stopMessage is what the service manager is told at the end.
type stopMessage struct {
	within time.Duration // that the daemon needs
	status string
}

// tell passes on to the service manager what the main loop hands over. A manager
// that does not read takes notifyLimit for each message, and signals must not
// wait for that.
func (d *daemon) tell(ctx context.Context) {
	for {
		select {
		case status := <-d.pings:
			d.notify.alive(status)
		case p := <-d.stopping:
			d.notify.stop(p.within, p.status)
		case <-ctx.Done():
			select {
			case p := <-d.stopping:
				d.notify.stop(p.within, p.status)
			default:
			}
			return
		}
	}
}

// status is the daemon in one line.
func (d *daemon) status(t tree) string {
	line := statusLine(t.Status())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused != nil {
		line += "; " + reloadRefused + ": " + d.refused.Fault
	}
	return line
}

// namedApps bounds how many apps a status names for each kind of trouble.
const namedApps = 5

// statusLine says how many apps there are and names those in trouble, by their
// states.
func statusLine(apps []supervisor.AppStatus) string {
	in := make(map[supervisor.State][]string)
	var keep []string
	for i := range apps {
		h := apps[i].Health
		in[h.State] = append(in[h.State], fmt.Sprintf("%s (%s)", apps[i].Name, h.Reason))
		if fault := apps[i].CredentialFault; fault != "" && len(apps[i].Workers) > 0 {
			keep = append(keep, fmt.Sprintf("%s (%s)", apps[i].Name, fault))
		}
	}
	line := fmt.Sprintf("%d apps", len(apps))
	if len(apps) == 1 {
		line = "1 app"
	}
	for _, state := range supervisor.States() {
		if state.Trouble() {
			line += named(state.Word(), in[state])
		}
	}
	return line + named("with a new credential that cannot be used", keep)
}

func named(trouble string, apps []string) string {
	if len(apps) == 0 {
		return ""
	}
	line := fmt.Sprintf("; %d %s: %s", len(apps), trouble, strings.Join(apps[:min(len(apps), namedApps)], ", "))
	if more := len(apps) - namedApps; more > 0 {
		line += fmt.Sprintf(" and %d more", more)
	}
	return line
}
