package beanstalk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"propeller/internal/neterr"
)

// wire is a connection for many commands at little cost, used by one goroutine: it asks for
// the numbers of thousands of tubes, and watches them. A session would need a goroutine for
// each command under way, and could not tell a refused watch.
type wire struct {
	srv  *server
	nc   net.Conn
	in   *bufio.Reader
	out  []byte // commands to be written
	body []byte // of the answer read last
	free []func() bool

	known bool // an answer was beanstalkd's
}

// pipelined is how many commands go out before their answers are read: so few that both fit
// the buffers of the network, else each side might wait for the other to read.
const pipelined = 64

// dialWire connects. The connection ends with ctx, or with close.
func (srv *server) dialWire(ctx context.Context) (*wire, error) {
	nc, err := srv.dial(ctx, srv.addr)
	if err != nil {
		return nil, &brokenError{addr: srv.addr, err: err}
	}
	w := &wire{srv: srv, nc: nc, in: bufio.NewReaderSize(nc, 4<<10)}
	for _, end := range []context.Context{ctx, srv.ctx} {
		w.free = append(w.free, context.AfterFunc(end, func() { nc.Close() }))
	}
	return w, nil
}

func (w *wire) close() {
	for _, stop := range w.free {
		stop()
	}
	w.nc.Close()
}

// each sends a command for every item, many at a time, and passes on the first line of each
// answer, in their order. An error ends it, and the connection is of no use any more.
func each[T any](w *wire, items []T, command func(out []byte, item T) []byte, answer func(item T, line []byte) error) error {
	for chunk := range slices.Chunk(items, pipelined) {
		w.out = w.out[:0]
		for _, item := range chunk {
			w.out = append(command(w.out, item), "\r\n"...)
		}
		if err := w.write(); err != nil {
			return err
		}
		for _, item := range chunk {
			line, err := w.line()
			if err == nil {
				err = answer(item, line)
			}
			if err != nil {
				return w.broken(err)
			}
		}
	}
	return nil
}

// ask sends one command, whose answer has a body of at most so many bytes, and reads that
// into w.body.
func (w *wire) ask(command string, most int) error {
	return each(w, []string{command},
		func(out []byte, _ string) []byte { return append(out, command...) },
		func(_ string, line []byte) error { return w.readBody(line, most) })
}

func (w *wire) write() error {
	err := w.nc.SetDeadline(time.Now().Add(w.srv.q.opts.timeout))
	if err == nil {
		_, err = w.nc.Write(w.out)
	}
	if err != nil {
		return w.broken(err)
	}
	return nil
}

// broken is the error for a connection that ended with err.
func (w *wire) broken(err error) error {
	if isBroken(err) {
		return err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		err = errWatchdog
	}
	return &brokenError{addr: w.srv.addr, err: err}
}

// line reads the first line of an answer. It is valid until the next read.
func (w *wire) line() ([]byte, error) {
	line, err := w.in.ReadSlice('\n')
	if !w.known && len(line) > 0 {
		if s := stranger(string(line)); s != nil {
			return nil, s
		}
		w.known = true
	}
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
		return nil, fmt.Errorf("not a beanstalkd answer: a line of more than %d bytes, %.60q", maxLine, line)
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// readBody reads the body that line, of the kind "OK 123", announces into w.body.
func (w *wire) readBody(line []byte, most int) error {
	length, ok := bytes.CutPrefix(line, []byte("OK "))
	n, isSize := size(length)
	if !ok || !isSize || n > most {
		return unexpected(line)
	}
	w.body = slices.Grow(w.body[:0], n+2)[:n+2]
	for got := 0; got < len(w.body); {
		k, err := w.in.Read(w.body[got:])
		if got += k; err != nil {
			return err
		}
	}
	w.body = w.body[:n]
	return nil
}

// reserved reads the answer to a reserve and skips the body of the job, which may be of any
// size. id is 0 without a job.
func (w *wire) reserved(line []byte) (id uint64, err error) {
	switch string(line) {
	case "TIMED_OUT", "DEADLINE_SOON": // the second: a job held here has little time left, and none is ready
		return 0, nil
	}
	rest, ok := bytes.CutPrefix(line, []byte("RESERVED "))
	number, length, _ := bytes.Cut(rest, []byte(" "))
	id, err = strconv.ParseUint(string(number), 10, 64)
	n, isSize := size(length)
	if !ok || err != nil || !isSize || n > maxJobClaim {
		return 0, unexpected(line)
	}
	_, err = w.in.Discard(n + 2)
	return id, err
}

// unexpected is the error for an answer that the command at hand cannot have.
func unexpected(line []byte) error {
	if s := stranger(string(line)); s != nil {
		return s
	}
	return fmt.Errorf("server answered %.60q", line)
}

// text returns the value of a key of w.body, the statistics read last. key is "\nname: ".
func (w *wire) text(key string) string {
	_, rest, _ := bytes.Cut(w.body, []byte(key))
	value, _, _ := bytes.Cut(rest, []byte("\n"))
	return unquote(string(value))
}

// number returns the value of a key of w.body.
func (w *wire) number(key string) (int, error) {
	v := w.text(key)
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0, neterr.Reworded(fmt.Sprintf("server statistics: %.30s %.30q", key[1:len(key)-2], v), err)
	}
	return int(n), nil
}

// tubes asks for the names of all tubes. They are valid until the next command. Those of
// tubes that are only watched or used are among them.
func (w *wire) listTubes() error { return w.ask("list-tubes", maxTubes) }

// names calls f for each name in the list of tubes that was read last.
func names(list []byte, f func(name []byte)) {
	for line := range bytes.Lines(list) {
		name, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r\n"), []byte("- "))
		if n := len(name); n >= 2 && name[0] == '"' && name[n-1] == '"' { // see unquote
			name = name[1 : n-1]
		}
		if ok && len(name) > 0 {
			f(name)
		}
	}
}
