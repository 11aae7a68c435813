package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"propeller/apnsconn/apnstest"
)

// turn is what one cell gave in one round.
type turn struct {
	figures
	server time.Duration // processor time of nghttpd for All pushes; 0 where it cannot be told
}

// bench is one run.
type bench struct {
	o      options
	log    io.Writer // progress
	dir    string    // temporary files
	roots  []byte    // PEM
	server *nghttpd
	h2load *h2load
	silent *apnstest.Server
}

// newBench starts the servers. The caller must call close.
func newBench(ctx context.Context, o options, log io.Writer) (b *bench, err error) {
	b = &bench{o: o, log: log}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "propeller-bench-"); err != nil {
		return nil, err
	}
	cert, key, err := newCertificate()
	if err != nil {
		return nil, err
	}
	b.roots = cert
	if b.server, err = startNghttpd(ctx, b.dir, cert, key); err != nil {
		return nil, err
	}
	if b.h2load, err = newH2load(b.server.addr, b.dir); err != nil {
		return nil, err
	}
	b.silent, err = startSilent(cert, key)
	return b, err
}

func (b *bench) close() {
	if b.silent != nil {
		b.silent.Close()
	}
	if b.server != nil {
		b.server.stop()
	}
	if b.dir != "" {
		if err := os.RemoveAll(b.dir); err != nil {
			fmt.Fprintln(b.log, "bench:", err)
		}
	}
}

// startSilent starts a server that answers the first push of a connection, and
// takes the others without answering.
func startSilent(cert, key []byte) (*apnstest.Server, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	greeted := make(map[int]bool) // by connection: a few per round
	return apnstest.Start(apnstest.Options{
		TLSCert:      &pair,
		ConnWindow:   1 << 24, // room for all, as at nghttpd
		ClientCert:   apnstest.ClientCertNone,
		NoValidation: true,
		Record:       -1,
		Script: func(r *apnstest.Request) apnstest.Answer {
			mu.Lock()
			defer mu.Unlock()
			silent := greeted[r.Conn]
			greeted[r.Conn] = true
			return apnstest.Answer{Silence: silent}
		},
	})
}

// run measures every cell of the plan, round after round.
func (b *bench) run(ctx context.Context) (*report, error) {
	cells := plan(b.o.streams)
	r := &report{options: b.o, machine: thisMachine(ctx), turns: make(map[cell][]turn)}
	begin := time.Now()
	for _, c := range cells {
		if c.sender == keyH2load {
			if err := b.h2load.calibrate(ctx, c.streams, b.duration(c)); err != nil {
				return nil, err
			}
		}
	}
	for round := range b.o.rounds {
		fmt.Fprintf(b.log, "round %d of %d\n", round+1, b.o.rounds)
		for _, c := range cells {
			t, err := b.turn(ctx, c)
			if err != nil {
				return nil, err
			}
			r.turns[c] = append(r.turns[c], t)
		}
	}
	r.took = time.Since(begin)
	return r, nil
}

// turn measures one cell once.
func (b *bench) turn(ctx context.Context, c cell) (t turn, err error) {
	before, known := b.server.cpu()
	if c.sender == keyH2load {
		t.figures, err = b.h2load.measure(ctx, c.streams)
	} else {
		t.figures, err = b.job(c).do(ctx, nil)
	}
	if err != nil {
		return t, err
	}
	if after, ok := b.server.cpu(); known && ok {
		t.server = after - before
	}
	if c.holdsInFlight() {
		t.Held, err = b.hold(ctx, c)
	}
	return t, err
}

func (b *bench) job(c cell) job {
	return job{
		Sender:  c.sender,
		Feed:    c.feed,
		Streams: c.streams,
		Addr:    b.server.addr,
		Roots:   b.roots,
		Warm:    b.o.warm,
		For:     b.duration(c),
	}
}

// duration is how long c is measured. One push at a time needs less.
func (b *bench) duration(c cell) time.Duration {
	if c.streams == 1 {
		return b.o.duration / 2
	}
	return b.o.duration
}

// hold measures the memory of c's pushes in flight.
func (b *bench) hold(ctx context.Context, c cell) (float64, error) {
	j := b.job(c)
	j.Hold, j.Addr = true, b.silent.Addr
	first := int(b.silent.Count())
	f, err := j.do(ctx, func(ctx context.Context) error {
		return b.silent.Wait(ctx, first+1+c.streams) // the first push is answered
	})
	return f.Held, err
}
