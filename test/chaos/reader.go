package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// reader reads the feedback tubes that have no webhook, as a producer of pushes
// would: it keeps a record first and deletes it from the tube then.
type reader struct {
	engine engine
	book   *book
	odd    []string // what was no JSON
}

// run reads until ctx ends. An error is the book's.
func (r *reader) run(ctx context.Context) error {
	for ctx.Err() == nil {
		conn, err := r.engine.dial()
		if err != nil {
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		err = r.read(ctx, conn)
		conn.close()
		if err != nil {
			return err
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil
}

// read reads until the connection fails or ctx ends.
func (r *reader) read(ctx context.Context, conn client) error {
	var tubes []string
	for _, a := range apps() {
		if a.feedback != "" && !a.webhook {
			tubes = append(tubes, a.feedback)
		}
	}
	for ctx.Err() == nil {
		id, body, err := conn.take(tubes, time.Second)
		switch {
		case errors.Is(err, errEmpty):
			continue
		case err != nil:
			return nil
		}
		if json.Valid(body) {
			if err := r.book.add("tube", body); err != nil {
				return err
			}
		} else {
			find(&r.odd, "on a feedback tube: %.200q", body)
		}
		if conn.remove(id) != nil {
			return nil // it comes again
		}
	}
	return nil
}
