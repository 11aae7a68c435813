package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"propeller/internal/heldport"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/jetstream/jetstreamtest"
)

// servers are a rig's own queue, which a daemon and foreign producers reach.
type servers struct {
	url  string // for the daemon's configuration
	pids []int  // of processes other than the daemon
	dial func() (foreign, error)
	host *host
}

// engineNames are the queues that a rig starts for itself.
var engineNames = []string{"embedded", "beanstalkd", "nats"}

// startServers starts a queue of a kind. The embedded one starts with its daemon.
func startServers(kind string) (s *servers, err error) {
	h := new(host)
	defer func() {
		if err != nil {
			h.end()
		}
	}()
	defer h.rescue(&err)
	s = &servers{host: h}
	switch kind {
	case "embedded":
		port, err := heldport.New()
		if err != nil {
			return nil, err
		}
		h.Cleanup(port.Close)
		dir := filepath.Join(h.TempDir(), "queue")
		s.url = (&url.URL{Scheme: "embedded", Path: dir, RawQuery: "listen=" + port.Addr()}).String()
		s.dial = func() (foreign, error) { return dialEmbedded(port.Addr(), filepath.Join(dir, "token")) }
	case "beanstalkd":
		server := beanstalktest.Start(h)
		s.url, s.pids = server.URL(), []int{server.PID()}
		s.dial = func() (foreign, error) { return dialBeanstalk(server.Addr()) }
	case "nats":
		cluster := jetstreamtest.Start(h, 3)
		s.url, s.pids = cluster.URL(), cluster.PIDs()
		s.dial = func() (foreign, error) { return dialNATS(cluster.URL()) }
	default:
		return nil, fmt.Errorf("queue %q: must be one of %q", kind, engineNames)
	}
	return s, nil
}

func (s *servers) close() { s.host.end() }

// host stands in for the test that beanstalktest and jetstreamtest start their servers for.
type host struct {
	testing.TB // the methods below are all that they call
	ends       []func()
}

// hostFailed is the panic of a failed host, which only rescue sees.
type hostFailed struct{ error }

func (h *host) rescue(err *error) {
	switch failed := recover().(type) {
	case nil:
	case hostFailed:
		*err = failed.error
	default:
		panic(failed)
	}
}

// end does what was left for the end, the last first.
func (h *host) end() {
	for len(h.ends) > 0 {
		last := len(h.ends) - 1
		end := h.ends[last]
		h.ends = h.ends[:last]
		end()
	}
}

func (h *host) Helper()                      {}
func (h *host) Failed() bool                 { return false }
func (h *host) Cleanup(end func())           { h.ends = append(h.ends, end) }
func (h *host) Fatal(args ...any)            { panic(hostFailed{errors.New(fmt.Sprint(args...))}) }
func (h *host) Fatalf(f string, a ...any)    { panic(hostFailed{fmt.Errorf(f, a...)}) }
func (h *host) Logf(format string, a ...any) {}

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "propeller-rigs-")
	if err != nil {
		panic(hostFailed{err})
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) }) // it is in the system's folder for such
	return dir
}
