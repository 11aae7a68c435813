package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ending is how the calm ended.
type ending struct {
	took   time.Duration
	stalls []string // tubes in which jobs wait and nothing moves
	slow   []string // tubes that move, but too slowly
}

// calm ends the faults and waits until the queue is empty. Nothing helps the daemon: it is
// not restarted, and is reloaded only if its hand left apps removed or in the wrong
// environment.
func (r *run) calm(ctx context.Context) (*ending, error) {
	r.at.note("calm")
	r.receiver.soothe()
	if err := r.apns.tell(ctx, order{Do: "calm"}); err != nil {
		return nil, err
	}
	if err := r.daemon.alive(ctx); err != nil {
		return nil, err
	}
	if err := r.daemon.complete(); err != nil {
		return nil, err
	}
	began := time.Now()
	p := newPulse(r.at.path(recordName))
	e := &ending{stalls: r.beacons(ctx, began)}
	if len(e.stalls) == 0 {
		e.stalls, e.slow = r.settle(ctx, began, p)
	}
	if e.took = time.Since(began); e.late() {
		r.askStatus(ctx, e.stalls, "status.txt", "status.json")
	}
	return e, ctx.Err()
}

// settle waits until the queue is empty. If that takes too long it says what stands still.
func (r *run) settle(ctx context.Context, began time.Time, p *pulse) (stalls, slow []string) {
	var told time.Time
	for {
		err := r.daemon.alive(ctx)
		if err != nil {
			return []string{fmt.Sprintf("the daemon: %v", err)}, nil
		}
		all, err := left(r.engine, tubes(allApps(r.at.apps)))
		if err == nil {
			err = p.look(all, time.Now())
		}
		end := began
		if due := r.ledger.lastDue(); due.After(end) {
			end = due
		}
		late := time.Since(end) > r.o.drain
		switch {
		case ctx.Err() != nil, err == nil && len(all) == 0:
			return nil, nil
		case late && err != nil:
			return []string{fmt.Sprintf("the queue: %v", err)}, nil
		case late:
			return p.verdict(all, time.Now())
		}
		if time.Since(told) > 2*time.Second {
			told = time.Now()
			r.at.note("left: %v %v", all, err)
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// beacons puts one good job into each busy app's tube. It shows that the app works again, and
// its answer shows the environment guard that the environment is right. Sleepers get none: it
// would wake those that have missed a job.
func (r *run) beacons(ctx context.Context, began time.Time) (stalls []string) {
	for i := range apps() {
		p := &producer{engine: r.engine, app: i, rng: newRNG(r.o.seed, 20+uint64(i)), ledger: r.ledger}
		for ctx.Err() == nil && !p.beacon(ctx) {
			if time.Since(began) > r.o.drain {
				stalls = append(stalls, fmt.Sprintf("%s: the queue takes no job", appAt(i).tube))
				break
			}
			if err := r.daemon.alive(ctx); err != nil {
				stalls = append(stalls, fmt.Sprintf("%s: the daemon: %v", appAt(i).tube, err))
				break
			}
			sleep(ctx, 100*time.Millisecond)
		}
		p.drop()
	}
	return stalls
}

// pulse sees whether anything moves: it notes when a tube's jobs last changed, and when an
// app last sent a request.
type pulse struct {
	record string
	offset int64 // how far the record was read
	tubes  map[string]string
	moved  map[string]time.Time // by tube
	began  time.Time
}

func newPulse(record string) *pulse {
	p := &pulse{record: record, tubes: make(map[string]string), moved: make(map[string]time.Time), began: time.Now()}
	if info, err := os.Stat(record); err == nil {
		p.offset = info.Size()
	}
	return p
}

// stillTime is how long nothing may move. The longest silent waits are of jobs that the
// environment guard doubts (72 s) and of jobs that a killed daemon held in a NATS cluster
// (120 s); both move before the queue must be empty.
const stillTime = 40 * time.Second

// look notes what is left in each tube.
func (p *pulse) look(all []remainder, now time.Time) error {
	for _, t := range all {
		if s := t.String(); p.tubes[t.tube] != s {
			p.tubes[t.tube], p.moved[t.tube] = s, now
		}
	}
	f, err := os.Open(p.record)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 1<<20)
	n, _ := f.ReadAt(data, p.offset)
	whole := strings.LastIndexByte(string(data[:n]), '\n') + 1
	p.offset += int64(whole)
	for line := range strings.Lines(string(data[:whole])) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("%s: %w", recordName, err)
		}
		if i, ok := appOf(e.Topic); ok {
			p.moved[appAt(i).tube] = now
		}
	}
	return nil
}

// verdict says which tubes with jobs stall and which are slow.
func (p *pulse) verdict(all []remainder, now time.Time) (stalls, slow []string) {
	for _, t := range all {
		since := p.moved[t.tube]
		if since.IsZero() {
			since = p.began
		}
		still := now.Sub(since)
		if still > stillTime {
			stalls = append(stalls, fmt.Sprintf("%s: jobs wait and nothing has moved for %v: %s", t.tube, still.Round(time.Second), t.counts()))
		} else {
			slow = append(slow, fmt.Sprintf("%s: jobs wait although there was enough time: %s", t.tube, t.counts()))
		}
	}
	return stalls, slow
}

// askTime bounds a question to a daemon that may be stuck.
const askTime = 20 * time.Second

// askStatus saves the output of `propeller status`, and adds its app's state to each stall.
func (r *run) askStatus(ctx context.Context, stalls []string, text, asJSON string) {
	r.status(ctx, text)
	said := r.status(ctx, asJSON, "--json")
	var page struct {
		Apps []struct{ Topic, State, Reason string }
	}
	err := json.Unmarshal(said, &page)
	for i := range stalls {
		tube, _, _ := strings.Cut(stalls[i], ":")
		if err != nil {
			stalls[i] += fmt.Sprintf("; propeller status has no answer: %v", err)
			continue
		}
		for _, of := range page.Apps {
			if n, ok := appOf(of.Topic); ok && (appAt(n).tube == tube || appAt(n).feedback == tube) {
				stalls[i] += strings.TrimSuffix(fmt.Sprintf("; propeller status says: %s %s: %s", of.Topic, of.State, of.Reason), ": ")
			}
		}
	}
}

// status runs `propeller status` and saves its output in a file.
func (r *run) status(ctx context.Context, name string, args ...string) []byte {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.at.propeller, append([]string{"status", "-c", r.at.path(configName)}, args...)...)
	cmd.SysProcAttr = dieWithParent()
	said, err := cmd.Output() // status 1: some apps are not ready
	r.at.note("propeller status %s: %d bytes, %v", strings.Join(args, " "), len(said), err)
	if err := r.at.write(name, said); err != nil {
		r.at.note("%s: %v", name, err)
	}
	return said
}

func (e *ending) late() bool { return len(e.stalls)+len(e.slow) > 0 }

// faults says what has not ended in time.
func (e *ending) faults(within time.Duration) (out []string) {
	for _, s := range e.stalls {
		out = append(out, "stall: "+s)
	}
	for _, s := range e.slow {
		out = append(out, fmt.Sprintf("not ended within %v: %s", within, s))
	}
	return out
}
