package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
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

// Costs of deriving what signs from a key (OWASP's for Argon2id): whoever sees a cookie
// may try keys with it, at their own machines. It takes some 40 ms, once for each key.
const (
	deriveTime   = 2
	deriveMemory = 19 << 10 // KiB
)

// sessionKey derives what signs the sessions of a key.
func sessionKey(name, token string) []byte {
	return argon2.IDKey([]byte(token), []byte("propeller session of "+name), deriveTime, deriveMemory, 1, sha256.Size)
}

// newSession is the cookie's value for whoever has shown a key.
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
// good, or one of a key that there is no more.
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

// cookie is the session's, to be kept so many seconds.
func (a *access) cookie(r *http.Request, value string, age int) *http.Cookie {
	return &http.Cookie{
		Name: a.cookieName(r), Value: value, Path: a.BasePath + "/", MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: a.overTLS(r),
	}
}
