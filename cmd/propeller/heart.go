package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"propeller/supervisor"
)

// beat proves to the service manager that the daemon lives: at each tick it
// asks every app how it is and hands the answer to the main loop, which has it
// sent. A lock that is stuck anywhere in the tree, or a loop that does not turn,
// ends the pings; and a stuck lock leaves the loop free to heed signals.
func (d *daemon) beat(ctx context.Context, t tree) {
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
		case d.beats <- status:
		}
	}
}

// parting is what the service manager is told at the end.
type parting struct {
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
		case p := <-d.parting:
			d.notify.stop(p.within, p.status)
		case <-ctx.Done():
			select {
			case p := <-d.parting:
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
		in[h.State] = append(in[h.State], fmt.Sprintf("%s (%s)", apps[i].Topic, h.Reason))
		if fault := apps[i].CredentialFault; fault != "" && len(apps[i].Workers) > 0 {
			keep = append(keep, fmt.Sprintf("%s (%s)", apps[i].Topic, fault))
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
