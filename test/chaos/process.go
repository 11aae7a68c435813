package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// endTimeout bounds the wait for a process to end after kill -9. Only a broken
// machine reaches it.
const endTimeout = 30 * time.Second

// process is a child. It is owned by one goroutine at a time.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and been waited for
}

// start runs cmd with its output appended to a file.
func start(name string, cmd *exec.Cmd, output string) (*process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer out.Close() // the child has its own
	cmd.Stderr = out
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in ProcessState
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended says whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal sends sig; a process that has ended already needs none.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// wait waits for the process's end, at most for limit.
func (p *process) wait(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// kill ends the process with SIGKILL, frozen or not, and waits for it.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	p.wait(endTimeout)
}

// freeze stops the process for d, or until ctx ends.
func (p *process) freeze(ctx context.Context, d time.Duration) {
	p.signal(syscall.SIGSTOP)
	defer p.signal(syscall.SIGCONT)
	sleep(ctx, d)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
