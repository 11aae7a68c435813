package httpapi

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/supervisor"
	"propeller/worker"
)

// guest is a browser at the page, on another machine.
type guest struct {
	t       testing.TB
	h       http.Handler
	from    string
	cookie  string // "" before signing in
	csrf    string
	headers map[string]string
}

func newGuest(t testing.TB, h http.Handler) *guest {
	return &guest{t: t, h: h, from: "192.0.2.1:1234", headers: make(map[string]string)}
}

func (g *guest) do(r *http.Request) *httptest.ResponseRecorder {
	r.RemoteAddr = g.from
	for name, value := range g.headers {
		r.Header.Set(name, value)
	}
	if g.cookie != "" {
		r.AddCookie(&http.Cookie{Name: cookieName, Value: g.cookie})
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
	form := url.Values{"csrf": {g.csrf}}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return g.do(r)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// signIn shows a key, which must be a right one.
func (g *guest) signIn(key string) *guest {
	g.t.Helper()
	w := g.post("/login", "key", key)
	if w.Code != http.StatusSeeOther {
		g.t.Fatalf("sign in with %q: %d %s", key, w.Code, w.Body)
	}
	g.cookie = w.Result().Cookies()[0].Value
	field := csrfField.FindStringSubmatch(g.get("/").Body.String())
	if field == nil {
		g.t.Fatal("no form on the page")
	}
	g.csrf = field[1]
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
		if w.Code != 401 || len(w.Result().Cookies()) != 0 || !strings.Contains(w.Body.String(), "none of the daemon") {
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
	if w := g.post("/logout"); w.Code != 303 || w.Result().Cookies()[0].MaxAge >= 0 {
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
// proxy that is believed.
func TestPageSecureCookie(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	api.Use(Settings{Keys: testKeys, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, c := range []struct {
		from, proto string
		tls, want   bool
	}{
		{"192.0.2.1:5", "", false, false}, {"192.0.2.1:5", "", true, true}, {"192.0.2.1:5", "https", false, false},
		{"10.0.0.1:5", "https", false, true}, {"10.0.0.1:5", "http", false, false},
	} {
		r := httptest.NewRequest("POST", "/login", strings.NewReader("key=admin-0123"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Forwarded-Proto", c.proto)
		r.RemoteAddr, r.TLS = c.from, nil
		if c.tls {
			r.TLS = new(tls.ConnectionState)
		}
		w := httptest.NewRecorder()
		if api.Network().ServeHTTP(w, r); w.Result().Cookies()[0].Secure != c.want {
			t.Errorf("%+v: %v", c, w.Header())
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

// A session ends by itself, with its key, and when there are very many; what the
// key may holds from the next request on.
func TestPageSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api, _, _ := newPageAPI()
		h := api.Network()
		g := newGuest(t, h).signIn("admin-0123")
		time.Sleep(sessionTime - time.Second)
		if w := g.get("/"); w.Code != 200 {
			t.Errorf("before its end: %d", w.Code)
		}
		time.Sleep(time.Second)
		if w := g.get("/"); w.Code != 303 {
			t.Errorf("after its end: %d", w.Code)
		}

		g.signIn("admin-0123")
		keys := []Key{{Name: "admin", Token: "admin-0123", Role: RoleRead}}
		api.Use(Settings{Keys: keys})
		if w := g.post("/apps/" + topic + "/pause"); w.Code != 403 {
			t.Errorf("the key is for reading now: %d", w.Code)
		}
		api.Use(Settings{Keys: testKeys[:1]})
		if w := g.get("/"); w.Code != 303 {
			t.Errorf("the key is gone: %d", w.Code)
		}
		api.Use(Settings{Keys: testKeys})
		if w := g.get("/"); w.Code != 303 {
			t.Errorf("the key is there again, the session not: %d", w.Code)
		}

		g.signIn("admin-0123")
		first := newGuest(t, h).signIn("reader-0123")
		for i := range maxSessions {
			if w := first.get("/"); (w.Code == 200) != (i < maxSessionsOfKey) {
				t.Fatalf("the first of %d of one key: %d", i+1, w.Code)
			}
			time.Sleep(time.Millisecond)
			newGuest(t, h).signIn("reader-0123")
		}
		if w := g.get("/"); w.Code != 200 || len(api.page.sessions.byID) != 1+maxSessionsOfKey {
			t.Errorf("the only one of another key: %d, %d are left", w.Code, len(api.page.sessions.byID))
		}
	})
}

// There are not very many sessions: a key's own oldest ends, or that of all.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	var s sessions
	now := time.Now()
	begin := func(i int) string {
		now = now.Add(time.Millisecond)
		return s.begin(keySum{byte(i), byte(i >> 8)}, now)
	}
	lives := func(id string) bool {
		_, ok := s.key(id, now)
		return ok
	}
	var ids []string
	for i := range maxSessions {
		ids = append(ids, begin(i))
	}
	begin(7)
	if lives(ids[7]) || !lives(ids[0]) {
		t.Error("not the oldest of the same key has ended")
	}
	begin(maxSessions)
	if lives(ids[0]) || !lives(ids[1]) || len(s.byID) != maxSessions {
		t.Errorf("not the oldest of all has ended; %d are left", len(s.byID))
	}
}

// pathOf is a route's path, filled in.
func pathOf(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, strings.NewReplacer("{topic}", topic, "{id...}", "7", "{$}", "", "{version}/{file}", assetVersion()+"/page.css").Replace(path)
}

// Every route of the page, asked by everybody: who may not is told so, and
// nothing is done.
func TestPageWhoMay(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	h := api.Network()
	guests := map[Role]*guest{RoleNone: newGuest(t, h)}
	for _, k := range testKeys[:3] {
		guests[k.Role] = newGuest(t, h).signIn(k.Token)
	}
	other := newGuest(t, h).signIn("other-0123")
	for _, route := range api.page.routes() {
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
			if role == RoleNone {
				want = http.StatusUnauthorized
				if method == "GET" && route.pattern != "GET /events" {
					want = http.StatusSeeOther
				}
			}
			if got := ask(g); got != want {
				t.Errorf("%s as %d: %d, want %d", route.pattern, role, got, want)
			}
		}
		if strings.Contains(route.pattern, "{topic}") {
			if got := ask(other); got != http.StatusForbidden {
				t.Errorf("%s with a key for another app: %d", route.pattern, got)
			}
		}
	}
	if tree.apps[0].Held.Held {
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
	for body, want := range map[string]int{"": 403, "csrf=x": 403, "csrf=" + api.page.csrf(""): 303} {
		if w := local("POST", body, "same-origin"); w.Code != want {
			t.Errorf("%q: %d", body, w.Code)
		}
	}
	if !tree.apps[0].Held.Held {
		t.Error("not paused")
	}
	if w := local("POST", "csrf="+api.page.csrf(""), "cross-site"); w.Code != 403 {
		t.Errorf("from another site: %d", w.Code)
	}
	if w := g.get("/login"); w.Code != 403 { // its host is example.com
		t.Errorf("by another name: %d", w.Code)
	}
}

// No action without a form of the page: each without its token, with another's,
// and sent by another site.
func TestPageCSRF(t *testing.T) {
	t.Parallel()
	api, tree, _ := newPageAPI()
	h := api.Network()
	other := newGuest(t, h).signIn("admin-0123")
	for _, route := range api.page.routes() {
		method, path := pathOf(route.pattern)
		if method != "POST" {
			continue
		}
		g := newGuest(t, h).signIn("admin-0123")
		own := g.csrf
		refused := func(what string) {
			t.Helper()
			w := g.post(path, "key", "admin-0123", "ids", "7")
			if w.Code != 403 || !strings.Contains(w.Body.String(), "did not come from the page") {
				t.Errorf("%s %s: %d %s", route.pattern, what, w.Code, w.Body)
			}
		}
		if route.role != RoleNone {
			for _, token := range []string{"", "x", other.csrf} {
				g.csrf = token
				refused("with the token " + token)
			}
		}
		g.csrf = own
		for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
			g.headers = map[string]string{name: value}
			refused(name)
		}
	}
	if tree.apps[0].Held.Held {
		t.Error("the app was paused")
	}
	g := newGuest(t, h).signIn("admin-0123")
	g.headers["Origin"] = "http://example.com" // as the request's host
	if w := g.post("/apps/" + topic + "/pause"); w.Code != 303 || w.Header().Get("Location") != "/apps/"+topic || !tree.apps[0].Held.Held {
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
		for _, route := range api.page.routes() {
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
	app.Topic = "com.example.other"
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
	roles := map[Role]string{RoleNone: "", RoleRead: "read", RoleSend: "send", RoleAdmin: "admin"}
	api, _, _ := newPageAPI()
	for _, r := range api.page.routes() {
		row := fmt.Sprintf("\n| `%s` | %s |", strings.NewReplacer("...", "", "{$}", "").Replace(r.pattern), roles[r.role])
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/http-api.md lacks %s", row)
		}
	}
}
