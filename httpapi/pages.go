package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"propeller/httpapi/page"
	"propeller/internal/rawjson"
	"propeller/internal/text"
)

// pages are what people see in a browser: the apps, live; an app; its buried
// jobs; a form to send a push. Whatever they do is done by the API's own functions.
type pages struct {
	api     *API
	cross   *http.CrossOriginProtection
	sampler sampler
}

func newPages(a *API) *pages {
	p := &pages{api: a, cross: http.NewCrossOriginProtection()}
	p.sampler.tree = a.tree
	p.sampler.draw = func(app *liveApp) string { return p.part("overview", "row", app) }
	return p
}

func (p *pages) routes() []route {
	a := p.api
	return []route{
		{"GET /{$}", RoleRead, false, p.overview},
		{"GET /events", RoleRead, false, p.events},
		{"GET /apps/{app}", RoleRead, false, p.app},
		{"POST /apps/{app}/pause", RoleAdmin, false, a.pause},
		{"POST /apps/{app}/resume", RoleAdmin, false, a.resume},
		{"GET /apps/{app}/buried", RoleRead, false, p.buried},
		{"GET /apps/{app}/buried/{id...}", RoleAdmin, false, p.job},
		{"POST /apps/{app}/buried/kick", RoleAdmin, false, a.buried("kicked", settle(Local.Kick))},
		{"POST /apps/{app}/buried/delete", RoleAdmin, false, a.buried("deleted", settle(Local.Delete))},
		{"GET /send", RoleSend, false, p.sendForm},
		{"POST /send", RoleSend, false, a.notifications},
		{"POST /send/preview", RoleSend, false, a.lint},
		{"GET /send/events", RoleSend, false, p.follow},
		{"GET /send/outcome", RoleSend, false, p.outcome},
		{"GET /login", roleNone, false, p.signInForm},
		{"POST /login", roleNone, false, p.signIn},
		{"POST /logout", RoleRead, false, p.signOut},
		{"GET /assets/{version}/{file}", roleNone, false, asset},
	}
}

// handler answers one route, for visitors who may use it; actions only from the page
// itself.
func (p *pages) handler(route route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer p.api.recovered(w, r)
		page.SetHeaders(w.Header())
		c := p.visitor(r)
		if c != nil {
			markAuthenticated(r)
		}
		refuse := func(status int, why string) {
			answerEarly(w)
			p.fault(w, r, c, status, why)
		}
		if c == nil && route.role != roleNone {
			answerEarly(w)
			p.notSignedIn(w, r)
			return
		}
		unclear := p.api.resolve(r, c)
		if why := route.denied(r, c); why != "" {
			refuse(http.StatusForbidden, why)
			return
		}
		if unclear != nil {
			refuse(statusOf(unclear), unclear.Error())
			return
		}
		if r.Method == http.MethodPost {
			if err := p.meant(r); err != nil {
				refuse(http.StatusForbidden, err.Error())
				return
			}
			if c != nil { // the form of strangers, who sign in, is bounded by signIn
				if err := bound(w, r, maxBody); err != nil {
					p.fault(w, r, c, bodyStatus(err), "the form: "+bodyFault(err))
					return
				}
			}
		}
		route.handle(w, r, c)
	}
}

// visitor returns the client that makes a request: by its session's cookie or, without
// keys in the configuration, because it comes from this machine. nil: unknown.
func (p *pages) visitor(r *http.Request) *client {
	a := p.api.access.Load()
	c, signed := a.visitor(r, time.Now()), true
	if len(a.keys) == 0 {
		c, signed = a.identify(r), false
	}
	if c == nil {
		return nil
	}
	v := *c
	v.browser, v.signed = true, signed
	return &v
}

// meant returns an error unless the browser says that the request comes from the page
// itself. A browser that says nothing may also send the cookie with forms of other sites
// (SameSite).
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

// wantsPage reports whether a request's answer is for a browser to show, not for a script.
func wantsPage(r *http.Request, c *client) bool {
	return c != nil && c.browser && !strings.Contains(r.Header.Get("Accept"), "json")
}

// refuse says what is wrong: as a page, or as a problem.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, c *client, status int, detail string) {
	if wantsPage(r, c) {
		a.pages.fault(w, r, c, status, detail)
		return
	}
	writeProblem(w, status, detail)
}

// fault says what is wrong on a path of the page.
func (p *pages) fault(w http.ResponseWriter, r *http.Request, c *client, status int, detail string) {
	if strings.Contains(r.Header.Get("Accept"), "json") {
		writeProblem(w, status, detail)
		return
	}
	v := p.view(c)
	v.Title, v.Main = http.StatusText(status), detail
	p.draw("fault", status, v).write(w)
}

// view is what each page of a visitor has; c is nil before signing in.
func (p *pages) view(c *client) page.View {
	v := page.View{Base: p.api.access.Load().BasePath}
	if c != nil {
		v.Name, v.Signed, v.MaySend, v.MayAct = c.name, c.signed, c.role >= RoleSend, c.role >= RoleAdmin
		if refused := p.api.refusedReload(c); refused != nil {
			v.Refused = refused
		}
	}
	return v
}

// show answers with a page of a visitor.
func (p *pages) show(w http.ResponseWriter, c *client, name, title, events string, main any) {
	v := p.view(c)
	v.Title, v.Events, v.Main = title, events, main
	p.draw(name, http.StatusOK, v).write(w)
}

func (p *pages) draw(name string, status int, v page.View) answer {
	text, err := page.Render(name, v)
	if err != nil {
		p.api.o.Log.Error("http: page", "page", name, "err", err)
		return problemOf(http.StatusInternalServerError, "", errPanic.Error())
	}
	return answerHTML(status, text)
}

func answerHTML(status int, text []byte) answer {
	return answer{status: status, contentType: "text/html; charset=utf-8", body: text}
}

func (p *pages) redirect(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, p.api.access.Load().BasePath+to, http.StatusSeeOther)
}

func asset(w http.ResponseWriter, r *http.Request, _ *client) {
	if !page.WriteAsset(w, r.PathValue("version"), r.PathValue("file")) {
		noRoute(w, r)
	}
}

// appPath is where an app's page is.
func appPath(name string) string { return "/apps/" + url.PathEscape(name) }

func (p *pages) app(w http.ResponseWriter, r *http.Request, c *client) {
	name := r.PathValue("app")
	st, ok := p.api.tree.AppStatus(name)
	if !ok {
		p.fault(w, r, c, http.StatusNotFound, noApp(name).Error())
		return
	}
	app := p.sampler.view(&st)
	app.addPushes(&st)
	p.show(w, c, "app", name, "/events?app="+url.QueryEscape(name), app)
}

// buriedPage is what the page of an app's buried jobs shows.
type buriedPage struct {
	App    string // its name
	List   BuriedList
	Groups []*buriedGroup // of List's jobs, the largest in front
	Notice string         // of what has just been done
	Fault  string
}

// buriedGroup are the jobs that were buried for one reason.
type buriedGroup struct {
	Reason string
	Jobs   []BuriedJob
}

func grouped(jobs []BuriedJob) []*buriedGroup {
	var out []*buriedGroup
	byReason := make(map[string]*buriedGroup)
	for _, j := range jobs {
		reason := groupOf(j.Reason)
		g := byReason[reason]
		if g == nil {
			g = &buriedGroup{Reason: reason}
			byReason[reason] = g
			out = append(out, g)
		}
		g.Jobs = append(g.Jobs, j)
	}
	slices.SortStableFunc(out, func(a, b *buriedGroup) int { return len(b.Jobs) - len(a.Jobs) })
	return out
}

func (p *pages) buried(w http.ResponseWriter, r *http.Request, c *client) {
	d := buriedPage{App: r.PathValue("app")}
	for _, done := range []string{"kicked", "deleted"} {
		if n, err := strconv.Atoi(r.URL.Query().Get(done)); err == nil && n > 0 {
			d.Notice = text.Plural(n, "job") + " " + done
		}
	}
	p.showBuried(w, r, c, http.StatusOK, d)
}

// showBuried shows the jobs that are buried now, below what d has to say.
func (p *pages) showBuried(w http.ResponseWriter, r *http.Request, c *client, status int, d buriedPage) {
	p.withJobs(w, r, c, func(ctx context.Context, l Local) (_ answer, err error) {
		if d.List, err = l.List(ctx, Selection{}); err != nil {
			return answer{}, err
		}
		d.Groups = grouped(d.List.Jobs)
		v := p.view(c)
		v.Title, v.Main = "Buried jobs of "+d.App, d
		return p.draw("buried", status, v), nil
	})
}

// withJobs answers with what do makes of an app's buried jobs, in turn with others.
func (p *pages) withJobs(w http.ResponseWriter, r *http.Request, c *client, do func(ctx context.Context, l Local) (answer, error)) {
	if !c.limit.Allow() {
		p.fault(w, r, c, http.StatusTooManyRequests, c.overRate().Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxTime)
	defer cancel()
	err := p.api.inTurn(ctx, w, c, func() (answer, error) {
		jobs, err := p.api.tree.Jobs(r.PathValue("app"))
		if err != nil {
			return answer{}, err
		}
		return do(ctx, Local{jobs})
	})
	if err != nil {
		p.fault(w, r, c, statusOf(err), err.Error())
	}
}

// settled answers a browser that had buried jobs kicked or deleted.
func (p *pages) settled(w http.ResponseWriter, r *http.Request, c *client, done string, s Settled, err error) {
	d := buriedPage{App: r.PathValue("app"), Fault: s.Incomplete}
	switch {
	case err != nil:
		d.Fault = err.Error()
		p.showBuried(w, r, c, statusOf(err), d)
	case s.Incomplete != "":
		d.Notice = text.Plural(s.Jobs, "job") + " " + done
		p.showBuried(w, r, c, http.StatusOK, d)
	default:
		p.redirect(w, r, fmt.Sprintf("%s/buried?%s=%d", appPath(d.App), done, s.Jobs))
	}
}

// job shows one buried job. With ?part it is only that, for a page that has the
// rest.
func (p *pages) job(w http.ResponseWriter, r *http.Request, c *client) {
	name := r.PathValue("app")
	p.withJobs(w, r, c, func(ctx context.Context, l Local) (answer, error) {
		j, err := l.Show(ctx, r.PathValue("id"))
		if err != nil {
			return answer{}, err
		}
		main := struct {
			App  string
			Job  BuriedJob
			Text string // the job, without its device tokens
		}{name, j, readable(j.Body, j.BodyBase64)}
		if r.URL.Query().Has("part") {
			return answerHTML(http.StatusOK, []byte(p.part("job", "job", main))), nil
		}
		v := p.view(c)
		v.Title, v.Main = "A buried job of "+name, main
		return p.draw("job", http.StatusOK, v), nil
	})
}

// maxShown bounds the text of a job that is shown, in bytes; the API has the whole job.
const maxShown = 256 << 10

// readable is a job's text for people: indented, with no more of a device token
// than its first 8 characters.
func readable(body string, other []byte) string {
	if body == "" {
		body = strings.ToValidUTF8(string(other), "\uFFFD")
	}
	return text.CutTokens(rawjson.Indent(body, "", maxShown))
}

func (p *pages) sendForm(w http.ResponseWriter, r *http.Request, c *client) {
	d := struct {
		Apps []appChoice // nil: too many to choose from
		App  string      // chosen
	}{App: p.asked(r, c)}
	for _, st := range p.api.tree.Status() {
		if c.may(st.Name, st.Topic) {
			d.Apps = append(d.Apps, appChoice{st.Name, st.Topic})
		}
	}
	if len(d.Apps) > maxRows {
		d.Apps = nil
	}
	p.show(w, c, "send", "Send a test push", "", d)
}

// appChoice is an app that the form offers.
type appChoice struct{ Name, Topic string }

// asked returns the app that a page's query names, by its name or, in an address from before
// apps had names, by its topic; "" for none.
func (p *pages) asked(r *http.Request, c *client) string {
	q := r.URL.Query()
	if name := q.Get("app"); name != "" || !q.Has("topic") {
		return name
	}
	name, err := p.api.appOf(c, q.Get("topic"))
	if err != nil {
		return q.Get("topic") // of no app
	}
	return name
}
