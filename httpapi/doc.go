// Package httpapi is propeller's HTTP interface: what a running daemon tells
// of its apps, and what an operator may do with their buried jobs.
//
// It is served on a Unix socket in state_dir, for this machine's owner of the
// daemon only (Open, Server); Client speaks to it. Everything is JSON, errors
// are problems (RFC 9457).
//
//	GET  /v1/apps                         every app, with its workers and counts
//	GET  /v1/apps/{topic}/buried          ?reason=part&limit=n
//	GET  /v1/apps/{topic}/buried/{id}     one buried job with its body
//	POST /v1/apps/{topic}/buried/kick     a Choice: these jobs are served again
//	POST /v1/apps/{topic}/buried/delete   a Choice
//	POST /v1/apps/{topic}/jobs            ?delay=10s: puts the job that the body is
//	GET  /healthz                         the process turns
//	GET  /readyz                          503 and who is to blame unless all is well
package httpapi
