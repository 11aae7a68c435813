package httpapi

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/time/rate"
)

// The keys of the tests, which are called as their tokens.
var testKeys = []Key{
	{Name: "reader", Token: "reader-0123", Role: RoleRead},
	{Name: "sender", Token: "sender-0123", Role: RoleSend},
	{Name: "admin", Token: "admin-0123", Role: RoleAdmin},
	{Name: "other", Token: "other-0123", Role: RoleAdmin, Topics: []string{"com.example.other"}},
}

// Every route, asked by everybody: who may not is told so, with the status that
// says why, and nothing is done.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	api := New(new(fakeTree), Options{})
	api.Use(Settings{Keys: testKeys, PProf: true})
	api.wrong.limit.SetLimit(rate.Inf) // there are many
	h := api.Network()
	for _, route := range append(api.routes(), api.profiles()...) {
		method, path, _ := strings.Cut(route.pattern, " ")
		path = strings.NewReplacer("{app}", topic, "{id...}", "7", "{id}", "7", "{profile}", "symbol", "{$}", "").Replace(path)
		for token, role := range map[string]Role{
			"": roleNone, "wrong": roleNone, "reader-012": roleNone, "reader-0123x": roleNone,
			"reader-0123": RoleRead, "sender-0123": RoleSend, "other-0123": RoleAdmin,
		} {
			want := 0
			switch named := strings.Contains(route.pattern, "{app}"); {
			case route.role == roleNone || role >= route.role && token != "other-0123":
				continue
			case role == roleNone:
				want = http.StatusUnauthorized
			case role < route.role, named, route.whole:
				want = http.StatusForbidden
			default:
				continue
			}
			r := httptest.NewRequest(method, path, strings.NewReader("{}"))
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want || w.Header().Get("Content-Type") != problemType {
				t.Errorf("%s with %q: %d %s, want %d", route.pattern, token, w.Code, w.Body, want)
			}
			if want == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: no WWW-Authenticate", route.pattern)
			}
		}
	}
}

// Without keys a program on this machine is an admin, and nobody else is
// anything.
func TestWithoutKeys(t *testing.T) {
	t.Parallel()
	api := New(new(fakeTree), Options{})
	h := api.Network()
	for _, c := range []struct {
		from, host string
		header     [2]string
		socket     bool
		status     int
	}{
		{"127.0.0.1:5", "127.0.0.1:8080", [2]string{}, false, 200},
		{"127.0.0.1:5", "localhost", [2]string{}, false, 200},
		{"[::1]:5", "[::1]:8080", [2]string{"Origin", "http://[::1]:8080"}, false, 200},
		{"[::ffff:127.0.0.1]:5", "localhost:1", [2]string{"Sec-Fetch-Site", "same-origin"}, false, 200},
		{"@", "localhost", [2]string{}, true, 200},
		{"10.0.0.1:5", "localhost", [2]string{}, false, 403},
		{"127.0.0.1:5", "rebound.example", [2]string{}, false, 403},
		{"127.0.0.1:5", "localhost", [2]string{"Origin", "https://evil.example"}, false, 403},
		{"127.0.0.1:5", "localhost", [2]string{"Origin", "null"}, false, 403},
		{"127.0.0.1:5", "localhost", [2]string{"Sec-Fetch-Site", "cross-site"}, false, 403},
		{"127.0.0.1:5", "localhost", [2]string{"X-Forwarded-For", "10.0.0.1"}, false, 403},
		{"@", "localhost", [2]string{"Forwarded", "for=10.0.0.1"}, true, 403},
		{"127.0.0.1:5", "127.0.0.1:8080", [2]string{"Via", "1.1 x"}, false, 403},
		{"127.0.0.1:5", "127.0.0.1:8080", [2]string{"X-Real-IP", "10.0.0.1"}, false, 403},
		{"127.0.0.1:5", "127.0.0.1:8080", [2]string{"X-Forwarded-Host", "example.com"}, false, 403},
		{"127.0.0.1:5", "127.0.0.1:8080", [2]string{"X-Forwarded-Proto", "https"}, false, 403},
		{"@", "localhost", [2]string{"X-Forwarded-Server", ""}, true, 403},
	} {
		r := httptest.NewRequest("GET", "/v1/apps", nil)
		r.RemoteAddr, r.Host = c.from, c.host
		if c.header[0] != "" {
			r.Header.Set(c.header[0], c.header[1])
		}
		if c.socket {
			r = r.WithContext(withLocal(r, &net.UnixAddr{Net: "unix"}))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%+v: %d %s", c, w.Code, w.Body)
		}
	}
	api.Use(Settings{Closed: true})
	r := httptest.NewRequest("GET", "/v1/apps", nil)
	r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost"
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 403 {
		t.Errorf("closed: %d", w.Code)
	}
}

// The client's address is what trusted proxies say, up to the first that is
// none.
func TestRemote(t *testing.T) {
	t.Parallel()
	a := newAccess(Settings{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, nil)
	for _, c := range []struct{ from, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"},
		{"192.0.2.1:5", "1.2.3.4", "192.0.2.1"},
		{"10.0.0.1:5", "1.2.3.4", "1.2.3.4"},
		{"10.0.0.1:5", "9.9.9.9, 1.2.3.4, 10.9.9.9", "1.2.3.4"},
		{"10.0.0.1:5", "evil\ntext", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:5", "2001:db8::1", "2001:db8::1"},
		{"10.0.0.1:5", "", "10.0.0.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.from
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := a.remote(r); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// A reload changes what keys may, and leaves alone what one has used of its
// limit.
func TestUse(t *testing.T) {
	t.Parallel()
	api := New(new(fakeTree), Options{})
	keys := []Key{{Name: "a", Token: "a-0123456", Role: RoleSend, Rate: 10}}
	api.Use(Settings{Keys: keys})
	first := api.access.Load().find("a-0123456")
	if first == nil || api.access.Load().find("a-0123457") != nil {
		t.Fatal("not found")
	}
	keys[0].Token, keys[0].Role = "b-0123456", RoleRead
	api.Use(Settings{Keys: keys})
	if second := api.access.Load().find("b-0123456"); second == nil || second.limit != first.limit || second.role != RoleRead || api.access.Load().find("a-0123456") != nil {
		t.Errorf("%+v", second)
	}
	keys[0].Rate = 11
	api.Use(Settings{Keys: keys})
	if third := api.access.Load().find("b-0123456"); third.limit == first.limit {
		t.Error("the limit is the old one")
	}
}

// What nginx passes on when it is told nothing but where to: HTTP/1.0, to the
// address that it connects to, over TCP or a socket.
func TestPlainProxy(t *testing.T) {
	t.Parallel()
	tree := newTouchedTree()
	h := New(tree, Options{}).Network()
	for _, listen := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")} {
		addr := serveWeb(t, Web{Listen: listen}, h)
		network := "tcp"
		if path, ok := strings.CutPrefix(listen, "unix:"); ok {
			network, addr = "unix", path
		}
		for head, want := range map[string]string{
			"GET /v1/apps HTTP/1.0\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n": "HTTP/1.0 403",
			"GET / HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n":             "HTTP/1.0 403",
			"GET /v1/apps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":      "HTTP/1.1 200",
		} {
			conn, err := net.Dial(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), want) {
				t.Errorf("%s: %q: %.100s, %v", listen, head, got, err)
			}
		}
	}
}
