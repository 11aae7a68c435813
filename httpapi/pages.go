package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"propeller/httpapi/page"
)

// pages is what people see in a browser: the apps, live; an app; its buried
// jobs; a form to send a push. Whatever it does it does as the API does.
type pages struct {
	api     *API
	cross   *http.CrossOriginProtection
	sampler sampler
}

func newPages(a *API) *pages {
	p := &pages{api: a, cross: http.NewCrossOriginProtection()}
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

func (p *pages) routes() []pageRoute {
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

// handler answers one route: to those who may, and actions only from forms of
// the page.
func (p *pages) handler(route pageRoute) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer p.api.recovered(w, r)
		page.SetHeaders(w.Header())
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
func (p *pages) visitor(r *http.Request) *visitor {
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
func (p *pages) meant(r *http.Request) error {
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
func (p *pages) act(route pageRoute, w http.ResponseWriter, r *http.Request, v *visitor) {
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

func (p *pages) show(w http.ResponseWriter, v *visitor, status int, name string, d page.View) {
	p.render(v, status, name, d).write(w)
}

func (p *pages) render(v *visitor, status int, name string, d page.View) answer {
	d.Base = p.api.access.Load().BasePath
	if v != nil {
		d.Name, d.Signed = v.name, v.signed
		d.MaySend, d.MayAct = v.role >= RoleSend, v.role >= RoleAdmin
		d.Refused = p.refusedReload(v, time.Now())
	}
	text, err := page.Render(name, d)
	if err != nil {
		p.api.o.Log.Error("http: page", "page", name, "err", err)
		return problemOf(http.StatusInternalServerError, "", errPanic.Error())
	}
	return answerHTML(status, text)
}

func answerHTML(status int, text []byte) answer {
	return answer{status: status, contentType: "text/html; charset=utf-8", body: text}
}

// fault says what went wrong: as a page, or as a problem to who asks for JSON.
func (p *pages) fault(w http.ResponseWriter, r *http.Request, v *visitor, status int, detail string) {
	if strings.Contains(r.Header.Get("Accept"), "json") {
		writeProblem(w, status, detail)
		return
	}
	p.show(w, v, status, "fault", page.View{Title: http.StatusText(status), Main: detail})
}

func (p *pages) redirect(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, p.api.access.Load().BasePath+to, http.StatusSeeOther)
}

func asset(w http.ResponseWriter, r *http.Request, _ *visitor) {
	if !page.WriteAsset(w, r.PathValue("version"), r.PathValue("file")) {
		noRoute(w, r)
	}
}
