package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"propeller/httpapi/page"
)

// signInPage is what the form to sign in shows besides itself.
type signInPage struct {
	Next  string // where to go then
	Fault string
}

// stranger answers who has not signed in.
func (p *pages) stranger(w http.ResponseWriter, r *http.Request) {
	switch {
	case len(p.api.access.Load().keys) == 0:
		p.fault(w, r, nil, http.StatusForbidden, "without http.auth_token or http.keys only browsers on this machine are served, not through a proxy, and not by links of other sites")
	case r.Method != http.MethodGet || r.URL.Path == "/events" || strings.Contains(r.Header.Get("Accept"), "json"):
		p.fault(w, r, nil, http.StatusUnauthorized, "not signed in, or no longer")
	case r.Header.Get("Sec-Fetch-Site") == "cross-site":
		// A link of another site: the browser keeps the cookie back
		// (SameSite=Strict), and sends it when the page itself asks again.
		p.show(w, nil, http.StatusOK, "bounce", page.View{Title: "propeller"})
	default:
		to := "/login"
		if r.URL.Path != "/" {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		p.redirect(w, r, to)
	}
}

func (p *pages) signInForm(w http.ResponseWriter, r *http.Request, v *visitor) {
	next := safeNext(r.URL.Query().Get("next"))
	switch {
	case v != nil:
		p.redirect(w, r, next)
	case len(p.api.access.Load().keys) == 0:
		p.stranger(w, r)
	default:
		p.askKey(w, http.StatusOK, signInPage{Next: next})
	}
}

func (p *pages) askKey(w http.ResponseWriter, status int, d signInPage) {
	p.show(w, nil, status, "login", page.View{Title: "Sign in", Main: d})
}

// signIn gives a session to who shows a key.
func (p *pages) signIn(w http.ResponseWriter, r *http.Request, v *visitor) {
	a := p.api.access.Load()
	if v == nil { // else the form is read
		if err := p.api.strangersForm(w, r, maxSignIn); err != nil {
			p.askKey(w, formStatus(err), signInPage{Next: "/", Fault: "The form could not be read: " + bodyFault(err) + "."})
			return
		}
	}
	next := safeNext(r.PostForm.Get("next"))
	token := strings.TrimSpace(r.PostForm.Get("key"))
	k := a.find(token)
	if k == nil {
		p.api.wrongKey(r)
		p.askKey(w, http.StatusUnauthorized, signInPage{next, "Invalid key."})
		return
	}
	known(r)
	http.SetCookie(w, a.cookie(r, k.newSession(time.Now()), int(sessionTime/time.Second)))
	p.api.audit(r, &k.client, "signed in")
	p.redirect(w, r, next)
}

func (p *pages) signOut(w http.ResponseWriter, r *http.Request, v *visitor) {
	http.SetCookie(w, p.api.access.Load().cookie(r, "", -1))
	p.api.audit(r, v.client, "signed out")
	p.redirect(w, r, "/login")
}

// safeNext is a path of this page; "/" if next is anything else.
func safeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}
