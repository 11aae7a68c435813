package httpapi

import (
	"net/http"
	"path"
	"strings"
)

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
