// Package queueurl reads the URLs of queues.
//
//	beanstalk://host[:port]                                   a beanstalkd server; port 11300
//	embedded:///folder  embedded://./folder                   a queue inside this process, in a folder
//	nats://[user[:password]@]host[:port][,host[:port]…]       a NATS cluster with JetStream; port 4222;
//	                                                          a user without a password is a token
//	tls://…                                                   the same, encrypted
//
// Options follow a "?": see schemes. This is the only place that takes such a text
// apart: configuration, commands and adapters get a URL.
package queueurl

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// URL is where a queue is, complete: paths are absolute, ports filled in. Equal queues
// have equal URLs. It prints without its secrets, whatever the verb.
type URL struct {
	Scheme                string
	Servers               []string // host:port, each once
	Dir                   string   // of an embedded queue, instead of servers
	User, Password, Token string
	Options               map[string]string // nil: none
}

const secret = "[secret]"

// String is the text of the URL, or with several beanstalkd servers of the URLs,
// separated by commas. User, password and token are masked.
func (u URL) String() string { return u.text(secret) }

// text has instead in the place of the secrets, or if that is "" the secrets.
func (u URL) text(instead string) string {
	if u.Scheme == "" {
		return ""
	}
	user := ""
	switch {
	case u.User == "" && u.Token == "":
	case instead != "":
		user = instead + "@"
	case u.Token != "":
		user = escape(u.Token) + "@"
	default:
		user = escape(u.User) + ":" + escape(u.Password) + "@"
	}
	servers := make([]string, len(u.Servers))
	for i, s := range u.Servers {
		servers[i] = (&url.URL{Host: s}).String()[len("//"):] // the zone of an IPv6 address is escaped
	}
	between := ","
	if !find(u.Scheme).cluster {
		between += u.Scheme + "://"
	}
	return u.Scheme + "://" + user + strings.Join(servers, between) + (&url.URL{Path: u.Dir}).EscapedPath() + u.query()
}

func (u URL) query() string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(u.Options)) {
		out = append(out, key+"="+readable.Replace(url.QueryEscape(u.Options[key])))
	}
	if out == nil {
		return ""
	}
	return "?" + strings.Join(out, "&")
}

// readable leaves as it is what needs no escape in a query (RFC 3986 §3.4).
var readable = strings.NewReplacer("%2F", "/", "%3A", ":")

// escape escapes also what net/url leaves: the commas, which stand between servers.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Format prints String whatever the verb and flags.
func (u URL) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), u.String()) }

// MarshalText returns String, for JSON and YAML.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Equal says whether both are the same, options included.
func (u URL) Equal(v URL) bool { return reflect.DeepEqual(u, v) }

// Meets says whether the two have a folder or a server in common.
func (u URL) Meets(v URL) bool {
	if u.Dir != "" {
		return u.Dir == v.Dir
	}
	return slices.ContainsFunc(u.Servers, func(s string) bool { return slices.Contains(v.Servers, s) })
}

// maxServers: every worker keeps a connection to each beanstalkd, and of a cluster some
// servers are enough to find all.
const maxServers = 32

// Add makes u the queue on the servers of both; those of the zero URL are none.
func (u *URL) Add(v URL) error {
	switch {
	case u.Scheme == "":
		*u = v
		return nil
	case find(u.Scheme).cluster || u.Scheme != v.Scheme:
		return errors.New("is not alone: a list is for several beanstalkd servers; the servers of a NATS cluster stand in one URL, like nats://a:4222,b:4222")
	case u.Meets(v):
		return errors.New("the same server as another of the list: remove one")
	case len(u.Servers) == maxServers:
		return fmt.Errorf("more than %d servers: every worker keeps a connection to each", maxServers)
	}
	u.Servers = append(u.Servers, v.Servers...)
	return nil
}

// Split takes a list of URLs apart, as the flag --queue has it: commas stand between
// URLs, and also between the servers of a cluster.
func Split(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if last := len(out) - 1; last >= 0 && MayHoldSecret(out[last]) && !strings.Contains(part, ":/") {
			out[last] += "," + part
			continue
		}
		out = append(out, part)
	}
	return out
}

// MayHoldSecret says whether text is, or is meant to be, a URL with user and password.
func MayHoldSecret(text string) bool {
	name, _, _ := strings.Cut(text, ":")
	return find(strings.ToLower(name)).cluster
}

// Local says whether addr, host:port, is of this machine alone.
func Local(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
