package httpapi

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/httpapi/page"
	"propeller/supervisor"
	"propeller/worker"
)

// guest is a browser at the page, on another machine.
type guest struct {
	t       testing.TB
	h       http.Handler
	from    string
	cookie  *http.Cookie // nil before signing in
	headers map[string]string
}

func newGuest(t testing.TB, h http.Handler) *guest {
	return &guest{t: t, h: h, from: "192.0.2.1:1234", headers: map[string]string{"Sec-Fetch-Site": "same-origin"}}
}

func (g *guest) do(r *http.Request) *httptest.ResponseRecorder {
	r.RemoteAddr = g.from
	for name, value := range g.headers {
		r.Header.Set(name, value)
	}
	if g.cookie != nil {
		r.AddCookie(g.cookie)
	}
	w := httptest.NewRecorder()
	g.h.ServeHTTP(w, r)
	return w
}

func (g *guest) get(path string) *httptest.ResponseRecorder {
	return g.do(httptest.NewRequest("GET", path, nil))
}

// post sends a form of the page, with pairs of names and values.
func (g *guest) post(path string, fields ...string) *httptest.ResponseRecorder {
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return g.do(r)
}

// postJSON sends what the scripts of the page do.
func (g *guest) postJSON(path string, v any) *httptest.ResponseRecorder {
	body, err := json.Marshal(v)
	if err != nil {
		g.t.Fatal(err)
	}
	r := httptest.NewRequest("POST", path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	return g.do(r)
}

// signIn shows a key, which must be a right one.
func (g *guest) signIn(key string) *guest {
	g.t.Helper()
	w := g.post("/login", "key", key)
	if w.Code != http.StatusSeeOther {
		g.t.Fatalf("sign in with %q: %d %s", key, w.Code, w.Body)
	}
	g.cookie = w.Result().Cookies()[0]
	return g
}

// newPageAPI has one app, keys and a log.
func newPageAPI() (api *API, tree *fakeTree, log *logText) {
	log = new(logText)
	app := fullApp()
	app.Health, app.Recent = supervisor.Health{State: supervisor.Running}, new(worker.Recent)
	tree = &fakeTree{apps: []supervisor.AppStatus{app}, jobs: jobsOf(openAdmin{})}
	api = New(tree, Options{Log: slog.New(slog.NewTextHandler(log, nil)), Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: testKeys})
	return api, tree, log
}

// A session begins with a key and ends with signing out; its cookie is for
// nobody else to read or send.
func TestPageSignIn(t *testing.T) {
	t.Parallel()
	api, _, log := newPageAPI()
	api.Use(Settings{Keys: testKeys, BasePath: "/base"})
	g := newGuest(t, api.Network())
	if w := g.get("/base/"); w.Code != 303 || w.Header().Get("Location") != "/base/login" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := g.get("/base/login"); w.Code != 200 || !strings.Contains(w.Body.String(), `action="/base/login"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, key := range []string{"", "wrong", "admin-012"} {
		w := g.post("/login", "key", key)
		if w.Code != 401 || len(w.Result().Cookies()) != 0 || !strings.Contains(w.Body.String(), "Invalid key") {
			t.Errorf("%q: %d %v", key, w.Code, w.Header())
		}
	}
	if !strings.Contains(log.String(), `msg="http: wrong keys" from=192.0.2.1 at="POST /login" keys=1`) || strings.Contains(log.String(), "admin-012") {
		t.Errorf("log: %s", log)
	}
	w := g.post("/login", "key", " admin-0123 ", "next", "/apps/"+topic)
	cookie := w.Result().Cookies()[0]
	if w.Code != 303 || w.Header().Get("Location") != "/base/apps/"+topic || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode ||
		cookie.Secure || cookie.Path != "/base/" || cookie.MaxAge != int(sessionTime/time.Second) {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	g.signIn("reader-0123")
	if w := g.get("/base/login"); w.Code != 303 || w.Header().Get("Location") != "/base/" {
		t.Errorf("signed in already: %d %v", w.Code, w.Header())
	}
	w = g.post("/logout")
	if g.cookie = w.Result().Cookies()[0]; w.Code != 303 || g.cookie.MaxAge >= 0 || g.cookie.Value != "" || g.cookie.Path != "/base/" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := g.get("/"); w.Code != 303 {
		t.Errorf("signed out: %d", w.Code)
	}
	for _, line := range []string{`msg="http: signed in" key=reader`, `msg="http: signed out" key=reader`} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("no %s in the log: %s", line, log)
		}
	}
}

// The cookie is kept for connections that nobody else reads: to here, or to a
// proxy that is believed. There no other host, nor a page without TLS, can set it.
func TestPageSecureCookie(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, proto, base string
		tls               bool
		name              string
	}{
		{from: "192.0.2.1:5", name: "propeller_session"},
		{from: "192.0.2.1:5", tls: true, name: "__Host-propeller_session"},
		{from: "192.0.2.1:5", tls: true, base: "/base", name: "__Secure-propeller_session"},
		{from: "192.0.2.1:5", proto: "https", name: "propeller_session"},
		{from: "10.0.0.1:5", proto: "https", name: "__Host-propeller_session"},
		{from: "10.0.0.1:5", proto: "https", base: "/base", name: "__Secure-propeller_session"},
		{from: "10.0.0.1:5", proto: "http", name: "propeller_session"},
	} {
		api, _, _ := newPageAPI()
		api.Use(Settings{Keys: testKeys, BasePath: c.base, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		ask := func(method, path string, cookies ...*http.Cookie) *http.Response {
			r := httptest.NewRequest(method, path, strings.NewReader("key=admin-0123"))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			r.Header.Set("X-Forwarded-Proto", c.proto)
			r.RemoteAddr, r.TLS = c.from, nil
			if c.tls {
				r.TLS = new(tls.ConnectionState)
			}
			for _, cookie := range cookies {
				r.AddCookie(cookie)
			}
			w := httptest.NewRecorder()
			api.Network().ServeHTTP(w, r)
			return w.Result()
		}
		cookie := ask("POST", "/login").Cookies()[0]
		secure := c.name != "propeller_session"
		if cookie.Name != c.name || cookie.Secure != secure || cookie.Path != c.base+"/" || cookie.Domain != "" || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
			t.Errorf("%+v: %v", c, cookie)
		}
		if got := ask("GET", "/", cookie).StatusCode; got != 200 {
			t.Errorf("%+v: with the cookie %d", c, got)
		}
		if cookie.Name = "propeller_session"; secure {
			if got := ask("GET", "/", cookie).StatusCode; got != 303 {
				t.Errorf("%+v: under a name that a page without TLS can set, %d", c, got)
			}
		}
	}
}

// Nobody is led away from the page by signing in.
func TestSafeNext(t *testing.T) {
	t.Parallel()
	for next, want := range map[string]string{
		"": "/", "/": "/", "/apps/a?x=y": "/apps/a?x=y", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example/": "/",
		"evil": "/", "/a\nb": "/", "/\t/evil.example": "/", "javascript:alert(1)": "/",
	} {
		if got := safeNext(next); got != want {
			t.Errorf("%q: %q", next, got)
		}
	}
}

// A session holds for its time at every daemon that has the key, and ends with the
// key; what the key may holds from the next request on.
func TestPageSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api, _, _ := newPageAPI()
		other, _, _ := newPageAPI() // another daemon, or this one after a restart
		g := newGuest(t, api.Network()).signIn("admin-0123")
		at := func(api *API) int {
			g.h = api.Network()
			return g.get("/").Code
		}
		time.Sleep(sessionTime - 2*time.Second)
		if a, b := at(api), at(other); a != 200 || b != 200 {
			t.Errorf("before its end: %d, %d", a, b)
		}
		time.Sleep(2 * time.Second)
		if a, b := at(api), at(other); a != 303 || b != 303 {
			t.Errorf("after its end: %d, %d", a, b)
		}

		g.signIn("admin-0123")
		other.Use(Settings{Keys: []Key{{Name: "admin", Token: "admin-0123", Role: RoleRead}}})
		if at(other); g.post("/apps/"+topic+"/pause").Code != 403 {
			t.Error("the key is for reading now")
		}
		for what, keys := range map[string][]Key{
			"the key is gone":           testKeys[:1],
			"the key has another token": {{Name: "admin", Token: "admin-4567", Role: RoleAdmin}},
			"the key has another name":  {{Name: "boss", Token: "admin-0123", Role: RoleAdmin}},
			"there are no keys":         nil,
		} {
			other.Use(Settings{Keys: keys})
			if got := at(other); got == 200 {
				t.Errorf("%s: %d", what, got)
			}
		}
	})
}

// A cookie that no key has signed as it is is none.
func TestPageForgedSessions(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	h := api.Network()
	good := newGuest(t, h).signIn("reader-0123").cookie
	until, rest, _ := strings.Cut(good.Value, ".")
	signature, name, _ := strings.Cut(rest, ".")
	later := strconv.FormatInt(time.Now().Add(24*time.Hour).Unix(), 10)
	signedBy := func(key, name string) string {
		h := hmac.New(sha256.New, []byte(key))
		fmt.Fprintf(h, "%s %s", until, name)
		return until + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil)) + "." + name
	}
	for value, want := range map[string]int{
		good.Value: 200,
		"":         303, ".": 303, "..": 303, "x": 303, name: 303,
		until + "." + signature + ".admin":       303, // another key's name
		until + "." + signature + ".":            303,
		later + "." + signature + "." + name:     303,
		"0" + good.Value:                         303,
		until + ".." + name:                      303,
		until + "." + signature[1:] + "." + name: 303,
		signedBy("", "reader"):                   303,
		signedBy("reader-0123", "reader"):        303, // the key itself is not what signs
		strings.Repeat("9", 30) + "." + rest:     303,
	} {
		g := newGuest(t, h)
		g.cookie = &http.Cookie{Name: good.Name, Value: value}
		if w := g.get("/"); w.Code != want {
			t.Errorf("%q: %d, want %d", value, w.Code, want)
		}
	}
}

// What signs is derived from a key once, also over reloads, and not before a session
// needs it.
func TestSessionKeysAreKept(t *testing.T) {
	t.Parallel()
	first := newAccess(Settings{Keys: testKeys}, nil)
	derived := 0
	for i := range first.keys {
		first.keys[i].session = func() []byte { derived++; return []byte("x") }
	}
	second := newAccess(Settings{Keys: append([]Key{{Name: "new", Token: "new-01234", Role: RoleRead}}, testKeys...)}, first)
	if derived != 0 {
		t.Errorf("%d derived at a reload", derived)
	}
	for i := range second.keys[1:] {
		second.keys[1+i].session()
	}
	if derived != len(testKeys) {
		t.Errorf("%d of %d kept", derived, len(testKeys))
	}
	changed := newAccess(Settings{Keys: []Key{{Name: testKeys[0].Name, Token: "another-0123", Role: RoleRead}}}, first)
	if key := changed.keys[0].session(); string(key) == "x" {
		t.Error("another token has the signing key of the one before")
	}
}

// pathOf is a route's path, filled in.
func pathOf(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, strings.NewReplacer("{app}", topic, "{id...}", "7", "{$}", "", "/assets/{version}/{file}", page.View{}.Assets()+"/page.css").Replace(path)
}

// Every route of the page, asked by everybody: who may not is told so, and
// nothing is done.
func TestPageWhoMay(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	h := api.Network()
	guests := map[Role]*guest{roleNone: newGuest(t, h)}
	for _, k := range testKeys[:3] {
		guests[k.Role] = newGuest(t, h).signIn(k.Token)
	}
	other := newGuest(t, h).signIn("other-0123")
	for _, route := range api.pages.routes() {
		method, path := pathOf(route.pattern)
		ask := func(g *guest) int {
			if method == "POST" {
				return g.post(path).Code
			}
			return g.get(path).Code
		}
		for role, g := range guests {
			if role >= route.role {
				continue
			}
			want := http.StatusForbidden
			if role == roleNone {
				want = http.StatusUnauthorized
				if method == "GET" && route.pattern != "GET /events" {
					want = http.StatusSeeOther
				}
			}
			if got := ask(g); got != want {
				t.Errorf("%s as %d: %d, want %d", route.pattern, role, got, want)
			}
		}
		if strings.Contains(route.pattern, "{app}") {
			if got := ask(other); got != http.StatusForbidden {
				t.Errorf("%s with a key for another app: %d", route.pattern, got)
			}
		}
	}
	if tree.apps[0].Paused.Paused {
		t.Error("the app was paused")
	}
	if w := guests[RoleAdmin].get("/apps/none"); w.Code != 404 || !strings.Contains(w.Body.String(), "no such app") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Without keys the page is for browsers on this machine, and not for the pages
// of others in them.
func TestPageWithoutKeys(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	api.Use(Settings{})
	g := newGuest(t, api.Network())
	g.headers = nil
	local := func(method, body, site string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, map[string]string{"GET": "/", "POST": "/apps/" + topic + "/pause"}[method], strings.NewReader(body))
		r.Host = "localhost:8080"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", site)
		return g.do(r)
	}
	if w := local("GET", "", "none"); w.Code != 403 || !strings.Contains(w.Body.String(), "http.keys") {
		t.Errorf("from elsewhere: %d %s", w.Code, w.Body)
	}
	g.from = "127.0.0.1:5"
	w := local("GET", "", "none")
	if w.Code != 200 || strings.Contains(w.Body.String(), "signout") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, site := range []string{"", "cross-site", "same-site"} {
		if w := local("POST", "", site); w.Code != 403 || tree.apps[0].Paused.Paused {
			t.Errorf("from the site %q: %d", site, w.Code)
		}
	}
	if w := local("POST", "", "same-origin"); w.Code != 303 || !tree.apps[0].Paused.Paused {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := g.get("/login"); w.Code != 403 { // its host is example.com
		t.Errorf("by another name: %d", w.Code)
	}
}

// No action but by the page: none that another site's page sends, and none of which
// the browser does not say where it comes from.
func TestPageCrossSite(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	h := api.Network()
	cookie := newGuest(t, h).signIn("admin-0123").cookie
	for _, route := range api.pages.routes() {
		method, path := pathOf(route.pattern)
		if method != "POST" {
			continue
		}
		for _, signed := range []bool{false, true} {
			if !signed && route.role != roleNone {
				continue
			}
			g := newGuest(t, h)
			if signed {
				g.cookie = cookie
			}
			for _, headers := range []map[string]string{
				{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
				{"Sec-Fetch-Site": "cross-site", "Origin": "http://example.com"},
			} {
				g.headers = headers
				w := g.post(path, "key", "admin-0123", "ids", "7")
				if w.Code != 403 || len(w.Result().Cookies()) > 0 || !strings.Contains(w.Body.String(), "this request did not come from") && !strings.Contains(w.Body.String(), "this browser does not say") {
					t.Errorf("%s with %v: %d %s", route.pattern, headers, w.Code, w.Body)
				}
			}
		}
	}
	if tree.apps[0].Paused.Paused {
		t.Error("the app was paused")
	}
	g := newGuest(t, h).signIn("admin-0123")
	g.headers = map[string]string{"Origin": "http://example.com"} // as the request's host; by plain HTTP a browser says no more
	if w := g.post("/apps/" + topic + "/pause"); w.Code != 303 || w.Header().Get("Location") != "/apps/"+topic || !tree.apps[0].Paused.Paused {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A form of the page that is far too large is refused as what it is.
func TestPageLargeForm(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	g := newGuest(t, api.Network()).signIn("admin-0123")
	if w := g.post("/apps/"+topic+"/pause", "x", strings.Repeat("x", maxBody)); w.Code != 413 || !strings.Contains(w.Body.String(), "larger than 1024 KiB") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// inline is what the policy keeps from working.
var inline = regexp.MustCompile(`(?i)<style|\sstyle=|<script[^>]*>[^<]|<script>|\son[a-z]+=|javascript:`)

// Whatever the page answers, browsers are told to load nothing from elsewhere;
// it has no inline script or style, and nothing of what APNs says becomes HTML.
func TestPageHeaders(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	const evil = `<b class="evil">`
	tree.apps[0].Health = supervisor.Health{State: supervisor.Broken, Reason: evil}
	tree.apps[0].Workers[0].Serving, tree.apps[0].Workers[0].Waiting = true, evil
	g := newGuest(t, api.Network())
	for _, signed := range []bool{false, true} {
		for _, route := range api.pages.routes() {
			method, path := pathOf(route.pattern)
			if method != "GET" || strings.HasSuffix(path, "/events") {
				continue
			}
			w := g.get(path)
			h := w.Header()
			if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'") ||
				!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || strings.Contains(h.Get("Content-Security-Policy"), "unsafe") ||
				h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" {
				t.Errorf("%s: %v", path, h)
			}
			if strings.Contains(path, "/assets/") != strings.Contains(h.Get("Cache-Control"), "immutable") {
				t.Errorf("%s: Cache-Control %q", path, h.Get("Cache-Control"))
			}
			if !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
				continue
			}
			if bad := inline.FindString(w.Body.String()); bad != "" || strings.Contains(w.Body.String(), evil) {
				t.Errorf("%s: has %q, or what APNs said as it is", path, bad)
			}
		}
		if !signed {
			g.signIn("admin-0123")
		}
	}
	for _, bad := range []string{"/assets/x/layout.html", "/assets/x/none.css", "/assets/x/..%2fpage.go"} {
		if w := g.get(bad); w.Code != 404 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	if w := g.get("/assets/old/page.css"); w.Code != 200 || strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("assets of another version: %d %v", w.Code, w.Header())
	}
}

// A link of another site brings no cookie at first: the page asks again itself.
func TestPageFromLink(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	g := newGuest(t, api.Network())
	g.headers["Sec-Fetch-Site"] = "cross-site"
	if w := g.get("/apps/" + topic); w.Code != 200 || !strings.Contains(w.Body.String(), `http-equiv="refresh"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	g.headers["Sec-Fetch-Site"] = "same-origin"
	if w := g.get("/apps/" + topic); w.Code != 303 || w.Header().Get("Location") != "/login?next=%2Fapps%2F"+topic {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// A key with topics sees those apps only; who may only look gets no buttons.
func TestPageShowsWhatOneMay(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	app := fullApp()
	app.Name, app.Topic = "com.example.other", "com.example.other"
	tree.apps = append(tree.apps, app)
	h := api.Network()
	other := newGuest(t, h).signIn("other-0123")
	for _, path := range []string{"/", "/send"} {
		if text := other.get(path).Body.String(); strings.Contains(text, topic) || !strings.Contains(text, "com.example.other") {
			t.Errorf("%s: %s", path, text)
		}
	}
	for _, k := range testKeys[:3] {
		g := newGuest(t, h).signIn(k.Token)
		app, buried := g.get("/apps/"+topic).Body.String(), g.get("/apps/"+topic+"/buried").Body.String()
		if got := strings.Contains(app, `id="pause"`); got != (k.Role == RoleAdmin) {
			t.Errorf("%s: pause is there: %v", k.Name, got)
		}
		if got := strings.Contains(buried, `class="kick"`); got != (k.Role == RoleAdmin) {
			t.Errorf("%s: kick is there: %v", k.Name, got)
		}
		if got := strings.Contains(app, `href="/send`); got != (k.Role >= RoleSend) {
			t.Errorf("%s: send is there: %v", k.Name, got)
		}
		if !strings.Contains(buried, `data-id="7"`) || !strings.Contains(app, `<span class="badge state">running</span>`) {
			t.Errorf("%s: %s %s", k.Name, app, buried)
		}
	}
}

// Every path of the page is in the table of docs/http-api.md, with the role that
// it takes.
func TestPageDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	roles := map[Role]string{roleNone: "", RoleRead: "read", RoleSend: "send", RoleAdmin: "admin"}
	api, _, _ := newPageAPI()
	for _, r := range api.pages.routes() {
		row := fmt.Sprintf("\n| `%s` | %s |", strings.NewReplacer("...", "", "{$}", "").Replace(r.pattern), roles[r.role])
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/http-api.md lacks %s", row)
		}
	}
}
