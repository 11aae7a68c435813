package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// embedded is an engine: the NATS server inside the daemon. It lives and dies
// with the daemon, so a hand can only harm its disk. Clients come in by its
// listener; once the daemon has gone for good, by a server on the same folder.
type embedded struct {
	disk      *disk
	dir, addr string
	orphaned  bool
}

func newEmbedded(at *site) (*embedded, error) {
	addr, err := at.freeAddr()
	if err != nil {
		return nil, err
	}
	d, err := newDisk(at)
	if err != nil {
		return nil, err
	}
	at.disk = d
	return &embedded{disk: d, dir: filepath.Join(d.dir, "queue"), addr: addr}, nil
}

func (e *embedded) url() string {
	return (&url.URL{Scheme: "embedded", Path: e.dir, RawQuery: "listen=" + e.addr}).String()
}

func (e *embedded) start(context.Context) error { return nil }
func (e *embedded) kill()                       { e.disk.close() }
func (e *embedded) hand(rng *rand.Rand) *hand   { return e.disk.hand(rng) }
func (e *embedded) late() bool                  { return true } // docs/queues.md: after 30 s
func (e *embedded) upset() []time.Time          { return e.disk.upset() }
func (e *embedded) removed() []removal          { return nil }
func (e *embedded) orphan()                     { e.orphaned = true }

func (e *embedded) dial() (client, error) {
	if e.orphaned {
		return e.revive()
	}
	token, err := os.ReadFile(filepath.Join(e.dir, "token"))
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect("nats://"+e.addr, nats.Token(strings.TrimSpace(string(token))), nats.Timeout(time.Second), nats.NoReconnect(), nats.PingInterval(time.Second))
	if err != nil {
		return nil, err
	}
	return newNATS(nc, nil)
}

// revive runs a server on the folder, for one client.
func (e *embedded) revive() (client, error) {
	s, err := server.NewServer(&server.Options{ServerName: "propeller", DontListen: true, JetStream: true, StoreDir: e.dir, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	end := func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	if !s.ReadyForConnections(startTimeout) || !s.JetStreamEnabled() {
		end()
		return nil, errors.New("no server starts on the queue's folder")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.NoReconnect())
	if err != nil {
		end()
		return nil, fmt.Errorf("the queue's folder: %w", err)
	}
	return newNATS(nc, end)
}
