package httpapi

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

// page is what people see in a browser: the apps, live; an app; its buried
// jobs; a form to send a push. Whatever it does it does as the API does.
type page struct {
	api     *API
	cross   *http.CrossOriginProtection
	sampler sampler
}

func newPage(a *API) *page {
	p := &page{api: a, cross: http.NewCrossOriginProtection()}
	p.sampler.tree = a.tree
	return p
}

// visitor is who looks at the page.
type visitor struct {
	*client
	signed bool // in: not without keys
}

// pageRoute is one request that the page answers.
type pageRoute struct {
	pattern string
	role    Role // that it takes
	handle  func(w http.ResponseWriter, r *http.Request, v *visitor)
}

func (p *page) routes() []pageRoute {
	return []pageRoute{
		{"GET /{$}", RoleRead, p.overview},
		{"GET /events", RoleRead, p.events},
		{"GET /apps/{topic}", RoleRead, p.app},
		{"POST /apps/{topic}/pause", RoleAdmin, p.pause},
		{"POST /apps/{topic}/resume", RoleAdmin, p.resume},
		{"GET /apps/{topic}/buried", RoleRead, p.buried},
		{"GET /apps/{topic}/buried/{id...}", RoleAdmin, p.job},
		{"POST /apps/{topic}/buried/kick", RoleAdmin, p.settle("kicked", Local.Kick)},
		{"POST /apps/{topic}/buried/delete", RoleAdmin, p.settle("deleted", Local.Delete)},
		{"GET /send", RoleSend, p.sendForm},
		{"POST /send", RoleSend, p.send},
		{"POST /send/preview", RoleSend, p.preview},
		{"GET /send/events", RoleSend, p.outcome},
		{"GET /send/outcome", RoleSend, p.fate},
		{"GET /login", RoleNone, p.signInForm},
		{"POST /login", RoleNone, p.signIn},
		{"POST /logout", RoleRead, p.signOut},
		{"GET /assets/{version}/{file}", RoleNone, asset},
	}
}

// pagePolicy lets a browser load nothing but what is embedded here, show it in no
// frame, and send forms nowhere else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// handler answers one route: to those who may, and actions only from forms of
// the page.
func (p *page) handler(route pageRoute) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer p.api.recovered(w, r)
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		// no-referrer would have browsers send "Origin: null" with the page's own forms
		// (Fetch Standard, "append a request Origin header").
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		v := p.visitor(r)
		if v != nil {
			known(r)
		}
		topic := r.PathValue("topic")
		refuse := func(status int, why string) {
			answerEarly(w)
			p.fault(w, r, v, status, why)
		}
		switch {
		case v == nil && route.role != RoleNone:
			answerEarly(w)
			p.stranger(w, r)
		case v != nil && v.role < route.role:
			refuse(http.StatusForbidden, fmt.Sprintf("key %q lacks the role for that", v.name))
		case topic != "" && !v.may(topic):
			refuse(http.StatusForbidden, fmt.Sprintf("key %q is for other apps", v.name))
		case r.Method == http.MethodPost:
			p.act(route, w, r, v)
		default:
			route.handle(w, r, v)
		}
	}
}

// visitor is who makes a request: by the cookie of a session, or, where there
// are no keys, by coming from this machine. nil: nobody that is known.
func (p *page) visitor(r *http.Request) *visitor {
	a := p.api.access.Load()
	if len(a.keys) == 0 {
		if c := a.identify(r); c != nil {
			return &visitor{c, false}
		}
		return nil
	}
	if c := a.visitor(r, time.Now()); c != nil {
		return &visitor{c, true}
	}
	return nil
}

// meant says why an action may be something that the page has not asked for: that is
// so unless the browser says where the request comes from, and it is the page. Browsers
// that say nothing may also send the cookie with forms of others (SameSite).
func (p *page) meant(r *http.Request) error {
	h := r.Header
	if h.Get("Sec-Fetch-Site") == "" && h.Get("Origin") == "" {
		return errors.New("this browser does not say where a request comes from (Origin): use a newer one")
	}
	if p.cross.Check(r) != nil {
		return errors.New("this request did not come from the page itself; load the page again and repeat it")
	}
	return nil
}

// act answers an action. The form of strangers, who sign in, is read by signIn.
func (p *page) act(route pageRoute, w http.ResponseWriter, r *http.Request, v *visitor) {
	if err := p.meant(r); err != nil {
		answerEarly(w)
		p.fault(w, r, v, http.StatusForbidden, err.Error())
		return
	}
	if v != nil {
		err := bound(w, r, maxBody)
		if err == nil {
			err = r.ParseForm()
		}
		if err != nil {
			p.fault(w, r, v, formStatus(err), "the form: "+bodyFault(err))
			return
		}
	}
	route.handle(w, r, v)
}

// pageData is what every page shows.
type pageData struct {
	Base    string // in front of every path
	Assets  string // where the assets are
	Title   string
	Name    string // of the visitor's key; "" for nobody
	Signed  bool   // in, so that they may sign out
	MaySend bool
	MayAct  bool
	Events  string // the address of the page's live data; "" for none
	Refused string // of the last reload, if it was refused
	Main    any
}

func (p *page) show(w http.ResponseWriter, v *visitor, status int, name string, d pageData) {
	p.render(v, status, name, d).write(w)
}

func (p *page) render(v *visitor, status int, name string, d pageData) answer {
	d.Base = p.api.access.Load().BasePath
	d.Assets = d.Base + "/assets/" + assetVersion()
	if v != nil {
		d.Name, d.Signed = v.name, v.signed
		d.MaySend, d.MayAct = v.role >= RoleSend, v.role >= RoleAdmin
		d.Refused = p.refusedReload(v, time.Now())
	}
	var out bytes.Buffer
	if err := pageTemplates()[name].ExecuteTemplate(&out, "layout", d); err != nil {
		p.api.o.Log.Error("http: page", "page", name, "err", err)
		return problemOf(http.StatusInternalServerError, "", errPanic.Error())
	}
	return answerHTML(status, out.Bytes())
}

func answerHTML(status int, text []byte) answer {
	return answer{status: status, contentType: "text/html; charset=utf-8", body: text}
}

// fault says what went wrong: as a page, or as a problem to who asks for JSON.
func (p *page) fault(w http.ResponseWriter, r *http.Request, v *visitor, status int, detail string) {
	if strings.Contains(r.Header.Get("Accept"), "json") {
		writeProblem(w, status, detail)
		return
	}
	p.show(w, v, status, "fault", pageData{Title: http.StatusText(status), Main: detail})
}

func (p *page) redirect(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, p.api.access.Load().BasePath+to, http.StatusSeeOther)
}

//go:embed page
var pageFiles embed.FS

// pageTemplates are the pages by name, each within the layout.
var pageTemplates = sync.OnceValue(func() map[string]*template.Template {
	out := make(map[string]*template.Template)
	for _, name := range []string{"overview", "app", "buried", "job", "send", "login", "fault", "bounce"} {
		t := template.New(name).Funcs(template.FuncMap{"seg": url.PathEscape})
		out[name] = template.Must(t.ParseFS(pageFiles, "page/layout.html", "page/job-part.html", "page/"+name+".html"))
	}
	return out
})

// assetVersion changes with the assets, which browsers may keep for ever.
var assetVersion = sync.OnceValue(func() string {
	h := sha256.New()
	err := fs.WalkDir(pageFiles, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := pageFiles.ReadFile(name)
		h.Write(text)
		return err
	})
	if err != nil {
		panic(err) // of files inside the program: cannot be
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
})

var assetTypes = map[string]string{ // never written to
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func asset(w http.ResponseWriter, r *http.Request, _ *visitor) {
	name := r.PathValue("file")
	kind := assetTypes[path.Ext(name)]
	text, err := pageFiles.ReadFile("page/" + name)
	if kind == "" || err != nil {
		noRoute(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	if r.PathValue("version") == assetVersion() {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(text) // whoever has gone needs no answer
}
