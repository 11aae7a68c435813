package httpapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn/apnstest"
)

// fakeConn is a connection that only notes that it is closed.
type fakeConn struct {
	net.Conn
	addr   string
	closed atomic.Bool
}

func (f *fakeConn) Close() error {
	f.closed.Store(true)
	return nil
}
func (f *fakeConn) RemoteAddr() net.Addr { return fakeAddr(f.addr) }

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (f fakeAddr) String() string { return string(f) }

// knownConns opens connections and says who has shown a key.
type knownConns struct {
	*conns
	ctx map[*fakeConn]context.Context
}

func newKnownConns(all, unauthenticated int) *knownConns {
	shared := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.1") }
	return &knownConns{newConns(all, unauthenticated, shared), make(map[*fakeConn]context.Context)}
}

func (k *knownConns) dial(addr string) *fakeConn {
	f := &fakeConn{addr: addr}
	k.ctx[f] = k.begin(context.Background(), f)
	k.changed(f, http.StateNew)
	return f
}

func (k *knownConns) ask(f *fakeConn, withKey bool) *fakeConn {
	k.changed(f, http.StateActive)
	if withKey {
		markAuthenticated(new(http.Request).WithContext(k.ctx[f]))
	}
	return f
}

// age has all connections have come so long ago that they may go.
func (k *knownConns) age() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.open {
		h.came = h.came.Add(-unauthenticatedStay)
	}
}

// One connection too many takes the place of the one that is missed least: a
// stranger's before those of who has shown a key, and none that works for one.
func TestConns(t *testing.T) {
	t.Parallel()
	k := newKnownConns(16, 8)
	for i := range 11 { // no stranger's, and in use
		k.ask(k.dial(fmt.Sprintf("198.51.100.%d:1", i)), true)
	}
	admin := k.ask(k.dial("192.0.2.1:1"), true)
	idle := k.ask(k.dial("192.0.2.3:1"), true)
	k.changed(idle, http.StateIdle)
	silent := k.dial("192.0.2.4:1")
	stranger := k.ask(k.dial("192.0.2.2:1"), false)
	later := k.dial("192.0.2.5:1")
	k.age()
	for i, least := range []*fakeConn{silent, stranger, later, idle} {
		if least.closed.Load() {
			t.Errorf("%d was closed too early", i)
		}
		if newer := k.ask(k.dial(fmt.Sprintf("192.0.2.%d:1", i+10)), true); !least.closed.Load() || newer.closed.Load() || admin.closed.Load() {
			t.Errorf("%d was not closed", i)
		}
	}
	if admitted, wait := k.admit(&openConn{conn: &fakeConn{}}); admitted || wait == 0 || admin.closed.Load() {
		t.Error("with all in use one more is admitted, or refused for good")
	}
	k.changed(silent, http.StateClosed) // as the server finds out
	if k.changed(admin, http.StateClosed); len(k.open) != 15 || len(k.from) != 0 {
		t.Errorf("%d are open, strangers of %d networks", len(k.open), len(k.from))
	}
}

// Strangers have their part of the connections, and take none of those who have
// shown a key: the one that is idle longest goes first, but each may stay for a while.
func TestConnsOfStrangers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKnownConns(16, 4)
		idle := k.ask(k.dial("192.0.2.1:1"), true)
		k.changed(idle, http.StateIdle)
		var all []*fakeConn
		dial := func() {
			all = append(all, k.dial(fmt.Sprintf("192.0.2.%d:1", len(all)+2)))
			time.Sleep(time.Millisecond)
		}
		for range 4 {
			dial()
		}
		k.ask(all[0], false) // which is not idle
		time.Sleep(unauthenticatedStay)
		for range 2 {
			dial()
		}
		for i, one := range all {
			if one.closed.Load() != (i == 1 || i == 2) {
				t.Errorf("%d: closed %t", i, one.closed.Load())
			}
		}
		if idle.closed.Load() || k.unauthenticated != 4 || len(k.open) != 5 {
			t.Errorf("idle closed %t, %d unauthenticated, %d are open", idle.closed.Load(), k.unauthenticated, len(k.open))
		}
		k.ask(all[5], true)
		k.ask(all[1], true) // which has gone
		if k.changed(all[4], http.StateClosed); k.unauthenticated != 2 || len(k.open) != 4 {
			t.Errorf("%d unauthenticated, %d are open", k.unauthenticated, len(k.open))
		}
		for range 4 {
			dial()
		}
		began := time.Now()
		dial()
		if took := time.Since(began); took > unauthenticatedStay || took < unauthenticatedStay-10*time.Millisecond {
			t.Errorf("with strangers who have just come the next one waited %v", took)
		}
		for _, f := range all {
			k.changed(f, http.StateClosed)
		}
	})
}

// The strangers of one network have their share, and hold up nobody of another; those
// of an address that stands for many have none, and who has shown a key does not count.
func TestConnsOfOneNetwork(t *testing.T) {
	t.Parallel()
	k := newKnownConns(100, 3) // two for each
	first := k.dial("[2001:db8::1]:1")
	second := k.ask(k.dial("[2001:db8::2]:1"), true)
	third := k.dial("[2001:db8::3]:1") // of the same network
	if first.closed.Load() || third.closed.Load() {
		t.Error("the share is too small")
	}
	if young := k.dial("[2001:db8::4]:1"); !young.closed.Load() || first.closed.Load() {
		t.Error("the first of the network had not its time")
	}
	k.age()
	fourth := k.dial("[2001:db8::5]:1")
	if !first.closed.Load() || second.closed.Load() || third.closed.Load() || fourth.closed.Load() {
		t.Error("not the first of the network was closed")
	}
	for _, addr := range []string{"127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "10.0.0.1:1", "@"} {
		k := newKnownConns(100, 4)
		for range 3 {
			if k.dial(addr).closed.Load() {
				t.Errorf("%s has a share", addr)
			}
		}
	}
}

// When very many clients of one host come at once, and show keys, all get in; when
// they show none, they hold up nobody for long.
func TestConnsOfOneHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKnownConns(1000, 8) // six for each
		for i := range 300 {
			f := k.dial("192.0.2.1:1")
			if f.closed.Load() {
				t.Fatalf("%d of those with keys was closed", i)
			}
			r := new(http.Request).WithContext(k.ctx[f])
			time.AfterFunc(herdTime/2, func() { markAuthenticated(r) })
		}
		time.Sleep(time.Minute)
		began := time.Now()
		for range 300 {
			k.dial("192.0.2.1:1")
		}
		if took := time.Since(began); took > herdTime || k.unauthenticated != 6 {
			t.Errorf("those without keys hold up others for %v, and there are %d", took, k.unauthenticated)
		}
	})
}

// Half of a process's descriptors are not for connections.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files                uint64
		all, unauthenticated int
	}{{0, 4096, 128}, {1 << 20, 4096, 128}, {1024, 512, 128}, {256, 128, 64}} {
		if all, unauthenticated := limits(c.files); all != c.all || unauthenticated != c.unauthenticated {
			t.Errorf("with %d descriptors %d connections, %d unauthenticated", c.files, all, unauthenticated)
		}
	}
}

// A request of a stranger has its time, on HTTP/1, too; one with a key has more.
func TestStrangerIsLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKnownConns(16, 8)
		stranger, keyed, idle := k.ask(k.dial("192.0.2.1:1"), false), k.ask(k.dial("192.0.2.2:1"), true), k.ask(k.dial("192.0.2.3:1"), false)
		k.changed(idle, http.StateIdle)
		time.Sleep(unauthenticatedTime)
		if stranger.closed.Load() {
			t.Error("too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !stranger.closed.Load() || keyed.closed.Load() || idle.closed.Load() {
			t.Errorf("closed: the stranger's %t, the one with a key %t, the idle one %t", stranger.closed.Load(), keyed.closed.Load(), idle.closed.Load())
		}
		for _, f := range []*fakeConn{stranger, keyed, idle} {
			k.changed(f, http.StateClosed)
		}
	})
}

// To cut a connection whose peer reads nothing takes no time.
func TestConnsCutTLS(t *testing.T) {
	t.Parallel()
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	pem := apns.ClientCertPEM("x")
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		server := tls.Server(here, &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true})
		client := tls.Client(there, &tls.Config{InsecureSkipVerify: true})
		var shaking sync.WaitGroup
		shaking.Go(func() {
			if err := client.Handshake(); err != nil {
				t.Error(err)
			}
		})
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		shaking.Wait()
		began := time.Now()
		(&openConn{conn: server}).cut()
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer sees %v", err)
		}
	})
}

// Strangers who hold every connection shut nobody out, whatever they have sent;
// whoever has shown a key keeps theirs.
func TestFullServer(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"nothing": "", "half a head": "GET / HTTP/1.1\r\n", "a head without a key": "POST /v1/lint HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"a part of a form": "POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := NewWeb(Web{Listen: "127.0.0.1:0"}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			s.all, s.unauthenticated = 20, 8
			api := New(new(fakeTree), Options{})
			api.Use(Settings{Keys: testKeys})
			s.Answer(api.Network())
			addr := s.Addr().String()
			run(t, s)
			keyed, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer keyed.Close()
			if _, err := io.WriteString(keyed, "POST /v1/lint HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sender-0123\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			read := func(want string) {
				t.Helper()
				got := make([]byte, len(want))
				if _, err := io.ReadFull(keyed, got); err != nil || string(got) != want {
					t.Errorf("whoever has a key gets %q, %v", got, err)
				}
			}
			read("HTTP/1.1 100 Continue\r\n\r\n") // now it is authenticated
			for range 2 * s.unauthenticated {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, begin) // it may have been cut
			}
			for range 3 {
				client := newClient(t)
				resp, err := client.Get("http://" + addr + "/healthz")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				client.CloseIdleConnections()
			}
			if _, err := io.WriteString(keyed, "{}"); err != nil {
				t.Fatal(err)
			}
			read("HTTP/1.1 200")
		})
	}
}

// Over HTTP/2, too, a key is one for its connection.
func TestKnownOverHTTP2(t *testing.T) {
	t.Parallel()
	addr := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		markAuthenticated(r)
		if h, _ := r.Context().Value(connKey{}).(*openConn); r.ProtoMajor != 2 || h == nil || !h.authenticated.Load() {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	client := newClient(t)
	tr := client.Transport.(*http.Transport)
	tr.ForceAttemptHTTP2, tr.TLSClientConfig = true, &tls.Config{InsecureSkipVerify: true} // its name is no host's
	resp, err := client.Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
