package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// nghttpd is nghttp2's server, the neutral APNs side.
//
// It answers a POST as it answers a GET: with the file of that path, or 404. So
// there is an empty file for each token, and the answer is 200 with an empty
// body; nghttpd keeps the files open, so disks have no part in it.
type nghttpd struct {
	addr   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has
	output *bytes.Buffer // valid once exited is closed
}

// nghttpdArgs are its options but for address, port and files.
var nghttpdArgs = [...]string{
	"--workers=1",
	"--max-concurrent-streams=1000", // as at APNs (jchambers/pushy#878)
	// APNs lets 64 KiB of payload be unacknowledged, which is less than 900
	// pushes have. Here all of them shall be in flight.
	"--connection-window-bits=24",
	"--no-content-length", // APNs sends none with 200 either
}

// startNghttpd starts it with its files in dir, which must be empty.
func startNghttpd(ctx context.Context, dir string, cert, key []byte) (*nghttpd, error) {
	docs := filepath.Join(dir, "htdocs")
	if err := os.MkdirAll(filepath.Join(docs, pathOf("")), 0o755); err != nil {
		return nil, err
	}
	files := map[string][]byte{"cert.pem": cert, "key.pem": key}
	for _, s := range shots() {
		files[filepath.Join("htdocs", pathOf(s.token))] = nil
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	// nghttpd does not tell which port it got when it asks for any. Between the
	// choice of a port and its use somebody else may take it.
	const tries = 5
	for try := 1; ; try++ {
		n, err := tryNghttpd(ctx, dir)
		if err == nil || try == tries || ctx.Err() != nil {
			return n, err
		}
	}
}

func tryNghttpd(ctx context.Context, dir string) (*nghttpd, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return nil, err
	}
	args := append([]string{"--address=127.0.0.1", "--htdocs=" + filepath.Join(dir, "htdocs")}, nghttpdArgs[:]...)
	args = append(args, strconv.Itoa(addr.Port), filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem"))
	n := &nghttpd{addr: addr.String(), cmd: exec.Command("nghttpd", args...), exited: make(chan struct{}), output: new(bytes.Buffer)}
	n.cmd.Stdout, n.cmd.Stderr = n.output, n.output
	n.cmd.SysProcAttr = dieWithParent()
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(n.exited)
		_ = n.cmd.Wait() // it is killed, or its output says why it ended
	}()
	if err := n.ready(ctx); err != nil {
		n.stop()
		return nil, fmt.Errorf("nghttpd on %s: %w: %s", n.addr, err, lastLines(strings.TrimSpace(n.output.String())))
	}
	return n, nil
}

// ready waits until n listens.
func (n *nghttpd) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", n.addr); err == nil {
			return c.Close()
		}
		select {
		case <-n.exited:
			return fmt.Errorf("ended at once")
		case <-ctx.Done():
			return fmt.Errorf("does not listen: %w", ctx.Err())
		case <-again.C:
		}
	}
}

// cpu is the processor time n has used; false where that cannot be told.
func (n *nghttpd) cpu() (time.Duration, bool) { return processTime(n.cmd.Process.Pid) }

func (n *nghttpd) stop() {
	_ = n.cmd.Process.Kill() // fails only when it has ended
	<-n.exited
}
