package supervisor

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"propeller/apnsconn/apnstest"
)

// startProxy starts an HTTP proxy that knows CONNECT, and returns its address
// and how many tunnels it has made for the given Proxy-Authorization.
func startProxy(t *testing.T, login string) (addr string, tunnels *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tunnels = new(atomic.Int64)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer nc.Close()
				in := bufio.NewReader(nc)
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if req.Method != "CONNECT" || req.Header.Get("Proxy-Authorization") != login {
					io.WriteString(nc, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
					return
				}
				far, err := net.Dial("tcp", req.Host)
				if err != nil {
					return
				}
				defer far.Close()
				tunnels.Add(1)
				io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n")
				all.Go(func() { io.Copy(nc, far); nc.Close() })
				io.Copy(far, in)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() }) // the tree has stopped: no tunnel is left
	return l.Addr().String(), tunnels
}

// Pushes and broadcasts go through the proxy of the file, and through the new
// one after a reload.
func TestProxyAndReload(t *testing.T) {
	w := newWorld(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	first, throughFirst := startProxy(t, "")
	second, throughSecond := startProxy(t, "Basic bWU6aHVudGVyMg==")
	w.write("proxy", []byte("http://me:hunter2@"+second+"\n"))
	w.start(w.app(topic, "proxy: 'http://"+first+"'"))
	w.put(topic, jobBody(0), `{"channel_id":"dHN0LXNyY2gtY2hubA==","aps":{"timestamp":1,"event":"update","content-state":{}}}`)
	w.empty(topic)
	if n := throughFirst.Load(); n != 1 || w.apns.Dials() != 1 {
		t.Errorf("%d tunnels, %d connections", n, w.apns.Dials())
	}
	reqs := w.apns.Requests()
	if len(reqs) != 2 {
		t.Fatalf("%d requests", len(reqs))
	}
	paths := map[string]bool{reqs[0].Path: true, reqs[1].Path: true}
	if !paths["/3/device/"+token(0)] || !paths["/4/broadcasts/apps/"+topic] {
		t.Errorf("paths %v", paths)
	}

	if err := w.sup.Apply(w.config(w.app(topic, "proxy_file: proxy"))); err != nil {
		t.Fatal(err)
	}
	w.until("the former app has ended, which may take a job until then", func() bool { return w.apns.Conns() == 0 })
	w.put(topic, jobBody(1))
	w.empty(topic)
	if n := throughSecond.Load(); n != 1 || w.apns.Dials() != 2 {
		t.Errorf("%d tunnels, %d connections", n, w.apns.Dials())
	}
	if w.log.contains("hunter2") {
		t.Error("the log holds the password")
	}
}

// A proxy that refuses is weather: the job waits, the log says why, and nothing
// shows the password.
func TestProxyRefuses(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	addr, _ := startProxy(t, "Basic another")
	w.start(w.app(topic, "proxy: 'http://me:hunter2@"+addr+"'"))
	w.put(topic, jobBody(0))
	w.until("refusal logged", func() bool { return w.log.contains("refused with status 407") })
	if s := w.status(topic); s.Health.State == Broken {
		t.Errorf("app broken: %s", s.Health.Reason)
	}
	w.halt()
	if n := w.tube(topic, "current-jobs-ready"); n != 1 {
		t.Errorf("%d jobs ready", n)
	}
	if w.log.contains("hunter2") || w.log.contains("bWU6") {
		t.Error("the log holds the password")
	}
}
