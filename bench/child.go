package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// do runs j in a process of its own. For a job that holds pushes, ready is
// called once the sender has sent them, and returns when the server has them.
func (j job) do(ctx context.Context, ready func(context.Context) error) (figures, error) {
	f, err := j.child(ctx, ready)
	if err != nil {
		return f, fmt.Errorf("%s, %d streams: %w", j.Sender, j.Streams, err)
	}
	return f, nil
}

func (j job) child(ctx context.Context, ready func(context.Context) error) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, j.Warm+j.For+2*jobTimeout)
	defer cancel()
	text, err := json.Marshal(j)
	if err != nil {
		return f, err
	}
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, self, senderCommand, string(text))
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return f, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return f, err
	}
	if err := cmd.Start(); err != nil {
		return f, err
	}
	answer, talkErr := j.talk(ctx, stdin, bufio.NewReader(stdout), ready)
	if talkErr != nil {
		cancel() // it may wait for an answer that does not come
	}
	if err := cmd.Wait(); err != nil {
		if said := strings.TrimSpace(stderr.String()); said != "" {
			return f, fmt.Errorf("%w: %s", err, lastLines(said))
		}
		if talkErr == nil {
			talkErr = err
		}
	}
	if talkErr != nil {
		return f, talkErr
	}
	return f, json.Unmarshal(answer, &f)
}

// talk returns the sender's answer.
func (j job) talk(ctx context.Context, stdin io.WriteCloser, stdout *bufio.Reader, ready func(context.Context) error) ([]byte, error) {
	if j.Hold {
		if line, err := stdout.ReadString('\n'); line != held {
			return nil, fmt.Errorf("sender said %q, want %q: %w", line, held, err)
		}
		if err := ready(ctx); err != nil {
			return nil, fmt.Errorf("waiting for its pushes: %w", err)
		}
		if _, err := io.WriteString(stdin, "measure\n"); err != nil {
			return nil, err
		}
	}
	const maxAnswer = 64 << 10 // figures have far less
	return io.ReadAll(io.LimitReader(stdout, maxAnswer))
}

// lastLines shortens what a process said to what an error can hold.
func lastLines(s string) string {
	const most = 2000
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return s
}
