package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// sessionTime is how long a sign-in holds: a long shift.
const sessionTime = 12 * time.Hour

// A session is a cookie and nothing else, so that it holds at every daemon that has
// the key, also over restarts: its end in Unix seconds, a signature, and the name of
// the key that was shown, with dots between them.

// Costs of deriving a session's signing key from an API key (OWASP's for Argon2id): somebody who sees a
// cookie may try keys against it offline. It takes some 40 ms, once for each key.
const (
	deriveTime   = 2
	deriveMemory = 19 << 10 // KiB
)

// sessionKey derives what signs the sessions of a key.
func sessionKey(name, token string) []byte {
	return argon2.IDKey([]byte(token), []byte("propeller session of "+name), deriveTime, deriveMemory, 1, sha256.Size)
}

// newSession is the cookie's value for a client that has shown a key.
func (k *accessKey) newSession(now time.Time) string {
	until := strconv.FormatInt(now.Add(sessionTime).Unix(), 10)
	return until + "." + k.sign(until) + "." + k.name
}

func (k *accessKey) sign(until string) string {
	h := hmac.New(sha256.New, k.session())
	fmt.Fprintf(h, "%s %s", until, k.name)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// visitor is the client whose session a request shows; nil if it shows none that is
// valid, or that of a key which is gone.
func (a *access) visitor(r *http.Request, now time.Time) *client {
	cookie, err := r.Cookie(a.cookieName(r))
	if err != nil {
		return nil
	}
	until, rest, _ := strings.Cut(cookie.Value, ".")
	signature, name, _ := strings.Cut(rest, ".")
	end, err := strconv.ParseInt(until, 10, 64)
	if err != nil || !now.Before(time.Unix(end, 0)) {
		return nil
	}
	for i := range a.keys {
		k := &a.keys[i]
		if k.name == name && hmac.Equal([]byte(signature), []byte(k.sign(until))) {
			return &k.client
		}
	}
	return nil
}

// cookieName is the session's. By TLS it begins so that a browser takes it from this
// very host alone, and only by TLS.
func (a *access) cookieName(r *http.Request) string {
	const name = "propeller_session"
	switch {
	case !a.overTLS(r):
		return name
	case a.BasePath != "":
		return "__Secure-" + name
	}
	return "__Host-" + name
}

// cookie is the session's, for the browser to keep for age seconds.
func (a *access) cookie(r *http.Request, value string, age int) *http.Cookie {
	return &http.Cookie{
		Name: a.cookieName(r), Value: value, Path: a.BasePath + "/", MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: a.overTLS(r),
	}
}

// signInPage is what the form to sign in shows besides itself.
type signInPage struct {
	Next  string // where to go then
	Fault string
}

// notSignedIn answers visitors who have not signed in.
func (p *pages) notSignedIn(w http.ResponseWriter, r *http.Request) {
	switch {
	case len(p.api.access.Load().keys) == 0:
		p.fault(w, r, nil, http.StatusForbidden, "without http.auth_token or http.keys only browsers on this machine are served: no proxies, and no links from other sites")
	case r.Method != http.MethodGet || r.URL.Path == "/events" || strings.Contains(r.Header.Get("Accept"), "json"):
		p.fault(w, r, nil, http.StatusUnauthorized, "not signed in, or signed out")
	case r.Header.Get("Sec-Fetch-Site") == "cross-site":
		// A link of another site: the browser keeps the cookie back
		// (SameSite=Strict), and sends it when the page itself asks again.
		p.show(w, nil, "bounce", "propeller", "", nil)
	default:
		to := "/login"
		if r.URL.Path != "/" {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		p.redirect(w, r, to)
	}
}

func (p *pages) signInForm(w http.ResponseWriter, r *http.Request, c *client) {
	next := safeNext(r.URL.Query().Get("next"))
	switch {
	case c != nil:
		p.redirect(w, r, next)
	case len(p.api.access.Load().keys) == 0:
		p.notSignedIn(w, r)
	default:
		p.askKey(w, http.StatusOK, signInPage{Next: next})
	}
}

func (p *pages) askKey(w http.ResponseWriter, status int, d signInPage) {
	v := p.view(nil)
	v.Title, v.Main = "Sign in", d
	p.draw("login", status, v).write(w)
}

// signIn gives a session to a visitor who shows a key.
func (p *pages) signIn(w http.ResponseWriter, r *http.Request, c *client) {
	a := p.api.access.Load()
	read := r.ParseForm
	if c == nil {
		read = func() error { return p.api.unauthenticatedForm(w, r, maxSignIn) }
	}
	if err := read(); err != nil {
		p.askKey(w, formStatus(err), signInPage{Next: "/", Fault: "The form could not be read: " + bodyFault(err) + "."})
		return
	}
	next := safeNext(r.PostForm.Get("next"))
	token := strings.TrimSpace(r.PostForm.Get("key"))
	k := a.find(token)
	if k == nil {
		p.api.wrongKey(r)
		p.askKey(w, http.StatusUnauthorized, signInPage{next, "Invalid key."})
		return
	}
	markAuthenticated(r)
	http.SetCookie(w, a.cookie(r, k.newSession(time.Now()), int(sessionTime/time.Second)))
	p.api.audit(r, &k.client, "signed in")
	p.redirect(w, r, next)
}

func (p *pages) signOut(w http.ResponseWriter, r *http.Request, c *client) {
	http.SetCookie(w, p.api.access.Load().cookie(r, "", -1))
	p.api.audit(r, c, "signed out")
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
