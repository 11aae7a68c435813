package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// Bounds of what notifications are read from.
const (
	// smallBody is what every request may hold in memory.
	smallBody = 64 << 10
	// largeBody is the most of one body, or line of a stream: 240,000 tokens.
	largeBody = 16 << 20
	// largeAtOnce bounds the bodies above smallBody: with what decoding takes,
	// some 300 MiB.
	largeAtOnce = 8
)

// errLarge: a body or a line is larger than largeBody.
var errLarge = fmt.Errorf("more than %d MiB", largeBody>>20)

// places are those of large bodies.
type places chan struct{}

// take waits for a place.
func (p places) take(ctx context.Context) error {
	select {
	case p <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("too many large requests at once: %w", ctx.Err())
	}
}

// read reads a whole body. free must be called when it is of no more use.
func (p places) read(ctx context.Context, in io.Reader) (body []byte, free func(), err error) {
	free = func() {}
	body, err = io.ReadAll(io.LimitReader(in, smallBody))
	if err != nil || len(body) < smallBody {
		return body, free, err
	}
	if err := p.take(ctx); err != nil {
		return nil, free, err
	}
	free = func() { <-p }
	rest, err := io.ReadAll(io.LimitReader(in, largeBody-smallBody+1))
	if len(rest) > largeBody-smallBody {
		err = errLarge
	}
	return append(body, rest...), free, err
}

// lines reads a stream line by line.
type lines struct {
	in    *bufio.Reader
	large places
	held  bool   // a place, for the last line
	text  []byte // of the lines since begin
}

func newLines(in io.Reader, large places) *lines {
	return &lines{in: bufio.NewReaderSize(in, smallBody), large: large}
}

// begin says that the lines so far are of no more use.
func (l *lines) begin() { l.text = l.text[:0] }

// next returns the next line without its end. It is of use until begin. The
// error is io.EOF after the last.
func (l *lines) next(ctx context.Context) ([]byte, error) {
	l.free()
	from := len(l.text)
	part, err := l.in.ReadSlice('\n')
	l.text = append(l.text, part...)
	if errors.Is(err, bufio.ErrBufferFull) {
		if err := l.large.take(ctx); err != nil {
			return nil, err
		}
		l.held = true
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = l.in.ReadSlice('\n')
		if l.text = append(l.text, part...); len(l.text)-from > largeBody {
			return nil, errLarge
		}
	}
	line := l.text[from:len(l.text):len(l.text)]
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return line, err
}

// free gives the place of the last line back: it is of no more use.
func (l *lines) free() {
	if l.held {
		l.held, l.text = false, nil
		<-l.large
	}
}

// waiting says that another whole line may be read without waiting for the
// client.
func (l *lines) waiting() bool {
	n := l.in.Buffered()
	ahead, err := l.in.Peek(n)
	return err == nil && bytes.IndexByte(ahead, '\n') >= 0
}
