// Package httpapi is propeller's HTTP API: jobs in, and out what a running
// daemon tells of its apps, and what an operator may do with them.
//
// It is served twice: where the configuration's http.listen says (Web), to
// clients that show keys (Settings); and on a Unix socket in state_dir (Open),
// to the daemon's own user, who is an admin. Client speaks to the latter.
// docs/http-api.md describes every request. Errors are problems (RFC 9457).
//
// On the network there is also a page for people: pages.go answers its requests, session.go
// says who looks, sampler.go looks at the apps for all visitors, live.go tells browsers what
// has changed. httpapi/page draws it, from this package's own types; what it does is done by
// the functions that answer the API (wantsPage: a browser gets a page, a client JSON).
package httpapi
