package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"

	"propeller/apnsconn"
)

// dialApnsconn opens propeller's own connection.
func dialApnsconn(ctx context.Context, j job, roots *x509.CertPool) (*sender, error) {
	conn, err := apnsconn.Dial(ctx, apnsconn.Config{Addr: j.Addr, RootCAs: roots, InFlight: j.Streams})
	if err != nil {
		return nil, err
	}
	var list []*apnsconn.Notification
	body, expires := payload(), int64(expiration)
	all := shots()
	for _, s := range all {
		if j.Feed == byCallbackOneID {
			s.id = all[0].id
		}
		list = append(list, &apnsconn.Notification{
			Token:      s.token,
			Topic:      topic,
			PushType:   pushType,
			ID:         s.id,
			Priority:   priority,
			Expiration: &expires,
			Payload:    body,
		})
	}
	a := &apnsconnSender{conn: conn, list: list}
	return &sender{
		push:  func(i int) error { return failure(conn.Push(context.Background(), a.nth(i))) },
		load:  a.load,
		close: func() { _ = conn.Close() }, // always nil
	}, nil
}

type apnsconnSender struct {
	conn *apnsconn.Conn
	list []*apnsconn.Notification
}

func (a *apnsconnSender) nth(i int) *apnsconn.Notification { return a.list[i%len(a.list)] }

func failure(o apnsconn.Outcome) error {
	if o.Class == apnsconn.Delivered {
		return nil
	}
	return fmt.Errorf("push ended %s, status %d: %w", o.Class, o.Status, o.Err)
}

func (a *apnsconnSender) load(l *load) {
	switch l.feed {
	case byCallers:
		callers(func(i int) error { return failure(a.conn.Push(context.Background(), a.nth(i))) })(l)
	case byCallback, byCallbackOneID:
		a.loadByCallback(l)
	default:
		a.loadFrom(int(l.feed), l)
	}
}

func (a *apnsconnSender) loadByCallback(l *load) {
	var inFlight sync.WaitGroup
	var done func(apnsconn.Outcome)
	send := func() {
		if i, ok := l.more(); ok {
			a.conn.Send(a.nth(i), done)
		} else {
			inFlight.Done()
		}
	}
	done = func(o apnsconn.Outcome) {
		l.end(failure(o))
		send()
	}
	inFlight.Add(l.streams)
	for range l.streams {
		send()
	}
	inFlight.Wait()
}

// loadFrom sends from n goroutines, each when a slot is free.
func (a *apnsconnSender) loadFrom(n int, l *load) {
	slots := make(chan struct{}, l.streams)
	done := func(o apnsconn.Outcome) {
		l.end(failure(o))
		<-slots
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				slots <- struct{}{}
				i, ok := l.more()
				if !ok {
					<-slots
					return
				}
				a.conn.Send(a.nth(i), done)
			}
		})
	}
	wg.Wait()
	for range l.streams { // all slots are free once all pushes have ended
		slots <- struct{}{}
	}
}
