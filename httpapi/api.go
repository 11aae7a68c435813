// Package httpapi is propeller's HTTP API: it takes in jobs, and tells what a running
// daemon knows of its apps and lets an operator act on them.
//
// It is served twice: where the configuration's http.listen says (Web), to
// clients that show keys (Settings); and on a Unix socket in state_dir (Open),
// to the daemon's own user, who is an admin. Client speaks to the latter.
// docs/http-api.md describes every request. Errors are problems (RFC 9457).
//
// On the network there is also a page for people: pages.go answers its requests, session.go
// knows who is signed in, sampler.go samples the apps for all visitors, live.go tells browsers what
// has changed. httpapi/page renders it from this package's types. Its forms are handled by
// the functions that answer the API (wantsPage: a browser gets a page, a client JSON).
package httpapi

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/buried"
	"propeller/worker/job"
)

// appTree is what the API needs of *supervisor.Supervisor.
type appTree interface {
	Status() []supervisor.AppStatus
	// AppStatus is the status of one app; ok is false if there is none of this name.
	AppStatus(name string) (_ supervisor.AppStatus, ok bool)
	// UnknownTubes are tubes that have jobs and belong to no app.
	UnknownTubes() []supervisor.UnknownTube
	// LostJobs is how many jobs the queue is known to have lost.
	LostJobs() int64
	// Jobs is the view of an app's buried jobs. Errors: supervisor.ErrNoApp,
	// supervisor.ErrNoAdmin.
	Jobs(app string) (buried.Jobs, error)
	// FindBuried returns the buried jobs whose producer got this id, and their app's name.
	FindBuried(id string) (app string, found []buried.Entry)
	// App is what an app's jobs are judged by. Errors: supervisor.ErrNoApp.
	App(name string) (job.Rules, error)
	// AppOf returns the name of the app that a topic stands for. Errors: supervisor.ErrNoApp,
	// *supervisor.AmbiguousError.
	AppOf(topic string) (name string, err error)
	// putAnswer puts a job in an app's tube. Errors: supervisor.ErrNoApp, those of
	// queue.Queue.
	Put(ctx context.Context, app string, body []byte, delay time.Duration) (id string, err error)
	// PutAll puts several at less cost, and returns what Put would for each.
	PutAll(ctx context.Context, jobs []supervisor.NewJob) []queue.Stored
	// Pause has an app take no jobs, Resume lets it go on. Errors:
	// supervisor.ErrNoApp.
	Pause(app, reason string) error
	Resume(app string) error
}

// Options are what an API needs besides the tree.
type Options struct {
	Log *slog.Logger
	// Metrics answers GET /metrics; nil: there are none.
	Metrics http.Handler
	// Outcomes remembers what has become of notifications, told by the tree; nil:
	// nothing does.
	Outcomes *Outcomes
	// Forgotten counts answers to requests with an Idempotency-Key that left before
	// their time; nil: nothing does.
	Forgotten *atomic.Int64
	// Reload reads the configuration and applies it; nil: it cannot be.
	Reload func(ctx context.Context) error
	// Reloads returns when a configuration was last applied, at the start or by a reload,
	// and which reload has been refused since. nil: nothing is known about reloads.
	Reloads func() (at time.Time, refused *RefusedReload)
}

// API answers requests: on the socket in state_dir, where everybody is an
// admin, and on the network, where keys say who may do what.
type API struct {
	tree   appTree
	o      Options
	access atomic.Pointer[access]
	owner  *client // of the socket

	// What is done at once: see the constants.
	bodies, asking, once, lasting, forms *budget
	answers                              answers // to requests with an Idempotency-Key
	pages                                *pages
	wrong                                *wrongKeys
}

// New returns the API of a tree. Without Use it has no keys.
func New(t appTree, o Options) *API {
	a := &API{
		tree: t, o: o, owner: newLocal("socket"),
		bodies: newBudget(bodyBudget, bodyBudget/4), asking: newBudget(askBudget, askBudget/2), once: newBudget(onceBudget, onceBudget/4),
		lasting: newBudget(lastBudget, lastBudget/4), forms: newBudget(formBudget, formBudget/4),
	}
	a.answers.forgotten = o.Forgotten
	if a.o.Log == nil {
		a.o.Log = slog.New(slog.DiscardHandler)
	}
	a.wrong = newWrongKeys(a.o.Log)
	a.pages = newPages(a)
	a.Use(Settings{})
	return a
}

// Use takes over settings, at once and for requests to come. Sessions of keys
// that are gone end.
func (a *API) Use(s Settings) {
	a.access.Store(newAccess(s, a.access.Load()))
}

// route is one request that is answered.
type route struct {
	pattern string
	role    Role // that it takes
	whole   bool // it takes a key for all apps
	handle  func(w http.ResponseWriter, r *http.Request, c *client)
}

// routes is all there is. A route whose pattern has {app}, a name, is for
// clients whose key is for that app; see resolve.
func (a *API) routes() []route {
	return []route{
		{"POST /post", roleNone, false, a.post}, // looks for the key in the form, too
		{"GET /healthz", roleNone, false, healthy},
		{"GET /readyz", roleNone, false, a.ready},
		{"GET /readyz/apps", roleNone, false, a.appsReady},
		{"GET /readyz/apps/{app}", roleNone, false, a.appReady},
		{"GET /openapi.yaml", roleNone, false, describe},
		{"GET /metrics", RoleRead, true, a.metrics},
		{"POST /v1/notifications", RoleSend, false, a.notifications},
		{"GET /v1/notifications/{id...}", RoleRead, false, a.notification},
		{"POST /v1/lint", RoleSend, false, a.lint},
		{"GET /v1/apps", RoleRead, false, a.apps},
		{"GET /v1/apps/{app}", RoleRead, false, a.app},
		{"POST /v1/apps/{app}/pause", RoleAdmin, false, a.pause},
		{"POST /v1/apps/{app}/resume", RoleAdmin, false, a.resume},
		{"POST /v1/reload", RoleAdmin, true, a.reload},
		{"GET /v1/apps/{app}/buried", RoleRead, false, a.buried("", list)},
		{"GET /v1/apps/{app}/buried/{id...}", RoleAdmin, false, a.buried("", show)},
		{"POST /v1/apps/{app}/buried/kick", RoleAdmin, false, a.buried("kicked", settle(Local.Kick))},
		{"POST /v1/apps/{app}/buried/delete", RoleAdmin, false, a.buried("deleted", settle(Local.Delete))},
		{"POST /v1/apps/{app}/jobs", RoleSend, false, a.put},
	}
}

// profiles are the routes of net/http/pprof, without its index, whose links
// would need them at the root.
func (a *API) profiles() []route {
	page := func(h http.HandlerFunc) func(http.ResponseWriter, *http.Request, *client) {
		return func(w http.ResponseWriter, r *http.Request, _ *client) {
			if !a.access.Load().PProf {
				writeProblem(w, http.StatusNotFound, "profiles are off: http.pprof: true serves them")
				return
			}
			h(w, r)
		}
	}
	return []route{
		{"GET /debug/pprof/{$}", RoleAdmin, true, page(pprof.Index)},
		{"GET /debug/pprof/{profile}", RoleAdmin, true, page(pprof.Index)},
		{"GET /debug/pprof/profile", RoleAdmin, true, page(pprof.Profile)},
		{"GET /debug/pprof/trace", RoleAdmin, true, page(pprof.Trace)},
	}
}

// Socket answers on a socket that only the daemon's owner can reach.
func (a *API) Socket() http.Handler {
	return a.mux(func(*http.Request) *client { return a.owner }, nil)
}

// Network answers on the listener of the configuration.
func (a *API) Network() http.Handler {
	mux := a.mux(a.identify, a.profiles())
	for _, route := range a.pages.routes() {
		mux.HandleFunc(route.pattern, a.pages.handler(route))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")                               // but for assets
		if access := a.access.Load(); access.HSTS && access.overTLS(r) { // RFC 6797, section 7.2
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		a.noteProxy(r)
		below(a.access.Load().BasePath, mux, w, r)
	})
}

// Trusts says whether an address is that of a trusted proxy.
func (a *API) Trusts(addr netip.Addr) bool { return a.access.Load().trustsAddr(addr) }

// identify returns the client that makes a request on the network; nil: unknown.
func (a *API) identify(r *http.Request) *client { return a.access.Load().identify(r) }

// still returns what client c, which made a request a while ago, is now; nil: no longer
// known.
func (a *API) still(r *http.Request, c *client) *client {
	switch {
	case c == a.owner:
		return c
	case c.browser:
		return a.pages.visitor(r)
	}
	return a.identify(r)
}

func (a *API) mux(identify func(*http.Request) *client, more []route) *http.ServeMux {
	mux := http.NewServeMux()
	for _, route := range append(a.routes(), more...) {
		mux.HandleFunc(route.pattern, func(w http.ResponseWriter, r *http.Request) {
			defer a.recovered(w, r)
			c := identify(r)
			if _, shown := bearer(r); shown && c == nil {
				a.wrongKey(r)
			}
			if c != nil {
				markAuthenticated(r)
			}
			unclear := a.resolve(r, c)
			switch {
			case route.role != roleNone && !a.admit(w, r, c, &route): // it has answered
			case unclear != nil:
				writeProblem(w, statusOf(unclear), unclear.Error())
			default:
				route.handle(w, r, c)
			}
		})
	}
	others := func(w http.ResponseWriter, r *http.Request) { noMethod(mux, w, r) }
	mux.HandleFunc("/", others)
	for _, route := range a.routes() {
		// Else ServeMux would lead from there to a slash at the end.
		if bare, ok := strings.CutSuffix(route.pattern, "/{id...}"); ok {
			mux.HandleFunc(strings.TrimPrefix(bare, "GET "), others)
		}
	}
	return mux
}

// recovered is deferred around each request: a panic is that request's end only.
func (a *API) recovered(w http.ResponseWriter, r *http.Request) {
	v := recover()
	switch v {
	case nil:
		return
	case http.ErrAbortHandler:
		panic(v) // net/http ends the connection, or the stream
	}
	a.panicked(r.Pattern, v)
	writeProblem(w, http.StatusInternalServerError, errPanic.Error())
}

// noteProxy warns, once until the settings change, of a proxy that is not trusted.
func (a *API) noteProxy(r *http.Request) {
	access := a.access.Load()
	if peer := access.untrusted(r); peer != "" {
		access.proxied.Do(func() {
			a.o.Log.Warn("http: requests come through a proxy that is not in http.trusted_proxies; its address stands for all its clients", "proxy", peer)
		})
	}
}

// wrongKey notes a request with a wrong key, and returns when it may be answered.
func (a *API) wrongKey(r *http.Request) {
	if access := a.access.Load(); len(access.keys) > 0 {
		a.wrong.wrong(r, access.remote(r))
	}
}

// errPanic answers a request that met a panic.
var errPanic = errors.New("internal error; the daemon's log says why")

func (a *API) panicked(request string, v any) {
	a.o.Log.Error("http: panic while answering", "request", request, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
}

// denied says why a client may not make a request; "" if it may.
func (route *route) denied(r *http.Request, c *client) string {
	name, topic := named(r)
	switch {
	case route.role == roleNone:
		return ""
	case c.role < route.role:
		return fmt.Sprintf("key %q lacks the role %s", c.name, route.role)
	case route.whole && c.scoped(), name != "" && !c.may(name, topic):
		return fmt.Sprintf("key %q is for other apps", c.name)
	}
	return ""
}

// admit says whether c may make a request, or answers why not.
func (a *API) admit(w http.ResponseWriter, r *http.Request, c *client, route *route) bool {
	status, why := http.StatusForbidden, ""
	switch {
	case c != nil:
		why = route.denied(r, c)
	case len(a.access.Load().keys) == 0:
		why = "without http.auth_token or http.keys only programs on this machine are served: no proxies, and no pages of other sites"
	default:
		w.Header().Set("WWW-Authenticate", "Bearer")
		status, why = http.StatusUnauthorized, "the header Authorization: Bearer must hold one of the daemon's keys"
	}
	if why != "" {
		answerEarly(w)
		writeProblem(w, status, why)
	}
	return why == ""
}

// noMethod answers what no route is for: 405 if there is one for another method.
func noMethod(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} { // there are no others
		other := &http.Request{Method: method, Host: r.Host, URL: r.URL}
		if _, pattern := mux.Handler(other); strings.HasPrefix(pattern, method+" ") {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		noRoute(w, r)
		return
	}
	if allowed[0] == http.MethodGet {
		allowed = slices.Insert(allowed, 1, http.MethodHead) // as ServeMux has it
	}
	answerEarly(w)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeProblem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%.200s does not allow %.20s", r.URL.Path, r.Method))
}

func noRoute(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, http.StatusNotFound, fmt.Sprintf("there is no %s %.200s", r.Method, r.URL.Path))
}

func healthy(w http.ResponseWriter, _ *http.Request, _ *client) {
	writeJSON(w, http.StatusOK, struct{}{})
}

func (a *API) metrics(w http.ResponseWriter, r *http.Request, _ *client) {
	if a.o.Metrics == nil {
		noRoute(w, r)
		return
	}
	a.o.Metrics.ServeHTTP(w, r)
}

// audit logs what a client has done.
func (a *API) audit(r *http.Request, c *client, action string, attrs ...any) {
	a.o.Log.Info("http: "+action, append([]any{"key", c.name, "from", a.access.Load().remote(r)}, attrs...)...)
}

// below answers a request by mux, below a base path, which proxies may take off
// or leave; "" for none.
func below(base string, mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	if base == "" || r.Method == http.MethodConnect {
		mux.ServeHTTP(w, r)
		return
	}
	if r.URL.Path == base {
		http.Redirect(w, r, base+"/", http.StatusPermanentRedirect)
		return
	}
	h, rest := http.Handler(mux), r.URL.EscapedPath()
	if strings.HasPrefix(rest, base+"/") {
		h, rest = http.StripPrefix(base, mux), rest[len(base):]
	}
	if to := canonical(rest); to != rest {
		if r.URL.RawQuery != "" {
			to += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, base+to, http.StatusTemporaryRedirect)
		return
	}
	h.ServeHTTP(w, r)
}

// canonical is the path to which ServeMux would redirect, if not p itself: it
// knows of no base path.
func canonical(p string) string {
	clean := path.Clean("/" + p)
	if clean != "/" && strings.HasSuffix(p, "/") || clean == "/debug/pprof" { // the only route with a slash at its end
		clean += "/"
	}
	return clean
}

// openAPI describes every request and answer. A test checks the one by the other.
//
//go:embed openapi.yaml
var openAPI []byte // never written to

func describe(w http.ResponseWriter, _ *http.Request, _ *client) {
	answer{status: http.StatusOK, contentType: "application/yaml", body: openAPI}.write(w)
}
