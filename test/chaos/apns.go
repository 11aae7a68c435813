package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// apns is the process of the APNs side.
type apns struct {
	at  *site
	rng *rand.Rand
	p   *process
	in  io.WriteCloser
	out chan string // its answers to orders
	run int
}

// start runs the process until it listens.
func (a *apns) start(ctx context.Context, profile string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for end := time.Now().Add(startTimeout); ; sleep(ctx, 50*time.Millisecond) {
		err := a.launch(ctx, self, profile)
		switch {
		case err == nil:
			a.at.note("apns started, run %d, pid %d, %s", a.run, a.p.pid(), profile)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("the APNs side does not start: %w", err)
		}
	}
}

func (a *apns) launch(ctx context.Context, self, profile string) error {
	a.run++
	plan, err := json.Marshal(simPlan{
		Addr: a.at.apnsAddr, WrongAddr: a.at.wrongAddr, Cert: a.at.path("apns.pem"), Key: a.at.path("apns.key"), Record: a.at.path(recordName),
		Run: a.run, Seed: a.rng.Uint64(), Profile: profile, OneStream: a.rng.IntN(5) == 0,
	})
	if err != nil {
		return err
	}
	cmd := exec.Command(self, simCommand, string(plan))
	if a.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	// A pipe of our own: that of exec closes at the process's end, before the
	// last line may have been read.
	out, stdout, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout = stdout
	a.p, err = start("apns", cmd, a.at.path("apns.log"))
	stdout.Close()
	if err != nil {
		out.Close()
		return err
	}
	answers := make(chan string, 1)
	a.out = answers
	p := a.p
	go func() { // ends with the process
		defer out.Close()
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case answers <- s.Text():
			case <-p.done:
				return
			}
		}
	}()
	if err := a.hear(ctx); err != nil {
		a.kill()
		return err
	}
	return nil
}

// hear waits for the process's next answer.
func (a *apns) hear(ctx context.Context) error {
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-a.out:
		return nil
	case <-a.p.done:
		return errors.New("the APNs side has ended by itself; see apns.log")
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("the APNs side does not answer")
	}
}

// tell gives an order and waits until it is carried out.
func (a *apns) tell(ctx context.Context, o order) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	a.at.note("apns: %s", line)
	if _, err := a.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the APNs side: %w", err)
	}
	return a.hear(ctx)
}

func (a *apns) kill() {
	a.at.note("apns killed")
	a.p.kill()
	a.in.Close()
}
