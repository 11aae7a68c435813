package jetstream

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Defaults of Options.
const (
	// DefaultAckWait is how long a job stays reserved without a sign of life
	// from its holder, on a cluster.
	DefaultAckWait = 120 * time.Second
	// DefaultEmbeddedAckWait is the same for an embedded server. It can be
	// short: holder and server live and pause together, so it only matters how
	// soon the jobs of a killed process return.
	DefaultEmbeddedAckWait = 30 * time.Second
	// DefaultReplicas is on how many servers of a cluster each job is kept.
	DefaultReplicas = 3
	// DefaultTimeout bounds one request to the server.
	DefaultTimeout = 5 * time.Second
	// DefaultPort is the port of NATS.
	DefaultPort = 4222
)

// Options configure Open. Either Dir or Servers is given; Parse makes them from
// a URL. They print without their secrets.
type Options struct {
	// Dir is the folder of an embedded server: the queue lives in this process.
	Dir string
	// FsyncAlways writes each job through to the disk before Put returns. Else
	// a loss of power (not a crash of the process) may lose the last second.
	FsyncAlways bool
	// Listen is where an embedded server takes connections of other programs:
	// a loopback address, host:port. "": nowhere. They need the token that is
	// kept in Dir/token.
	Listen string
	// Attach says what to do when another process owns Dir: connect to its
	// Listen address instead of failing. It is for commands that look in, not
	// for daemons.
	Attach bool

	// Servers are some servers of a cluster, host:port; the others are learned
	// from them.
	Servers []string
	// TLS demands an encrypted connection. CAFile (PEM) replaces the system's
	// roots.
	TLS    bool
	CAFile string
	// User and Password, or Token, or CredsFile (a NATS .creds file) prove who
	// we are.
	User, Password, Token, CredsFile string
	// Replicas is on how many servers each job is kept: 1, 3 or 5. 0 means
	// DefaultReplicas.
	Replicas int

	// AckWait is how long a job stays reserved without a sign of life from its
	// holder; 100 ms to 1 h. It is a property of a tube's consumer in the
	// server and holds for all daemons. 0 means the default.
	AckWait time.Duration
	// Timeout bounds one request to the server. 0 means DefaultTimeout.
	Timeout time.Duration
	// Log gets one line per change of the connection's state, and what an
	// embedded server warns of. nil: no log.
	Log *slog.Logger
	// Still is called when an embedded server stands still and only the end of the
	// process helps. nil: that is only logged.
	Still func(error)
}

// String names the queue, without secrets.
func (o Options) String() string {
	if o.Dir != "" {
		return "embedded://" + o.Dir
	}
	return o.scheme() + strings.Join(o.Servers, ",")
}

func (o Options) scheme() string {
	if o.TLS {
		return "tls://"
	}
	return "nats://"
}

// GoString is String: %#v must not show secrets either.
func (o Options) GoString() string { return o.String() }

// LogValue is String for slog.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// Parse reads a URL of one of these forms:
//
//	embedded:///path            a folder; embedded://./path is relative
//	  ?fsync=always             write each job through to the disk
//	  ?listen=127.0.0.1:4222    let other programs in, on a loopback address
//	nats://[user:password@]host[:port],host[:port]…
//	tls://…                     the same, encrypted
//	  ?creds=FILE               a NATS credentials file
//	  ?ca=FILE                  trust these roots instead of the system's
//	  ?replicas=N               on how many servers each job is kept: 1, 3 or 5
//
// nats://token@host gives a token. Errors never repeat user, password or token.
func Parse(s string) (Options, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Options{}, fmt.Errorf("jetstream: queue url: want embedded:///path or nats://host:port")
	}
	rest, query, _ := strings.Cut(rest, "?")
	var o Options
	var err error
	switch scheme {
	case "embedded":
		o, err = parseEmbedded(rest, query)
	case "nats", "tls":
		o, err = parseServers(scheme, rest, query)
	default:
		err = fmt.Errorf("scheme %q: must be embedded, nats or tls", scheme)
	}
	if err != nil {
		return Options{}, fmt.Errorf("jetstream: queue url: %w", err)
	}
	_, err = o.withDefaults()
	return o, err
}

func parseEmbedded(path, query string) (Options, error) {
	path, err := url.PathUnescape(path)
	if err != nil {
		return Options{}, fmt.Errorf("path: %w", err)
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "./") && !strings.HasPrefix(path, "../") {
		return Options{}, fmt.Errorf("folder %q: want embedded:///absolute/path or embedded://./relative", path)
	}
	set, err := parseQuery(query, "fsync", "listen")
	if v, given := set["fsync"]; given && v != "always" {
		return Options{}, fmt.Errorf("fsync %q: only \"always\" is known; without it, once a second", v)
	}
	return Options{Dir: filepath.Clean(path), FsyncAlways: set["fsync"] != "", Listen: set["listen"]}, err
}

func parseServers(scheme, rest, query string) (Options, error) {
	o := Options{TLS: scheme == "tls"}
	// Cut by hand: net/url refuses more than one host.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if err := o.setUser(rest[:i]); err != nil {
			return o, err
		}
		rest = rest[i+1:]
	}
	for host := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), ",") {
		addr, err := serverAddr(host)
		if err != nil {
			return o, err
		}
		o.Servers = append(o.Servers, addr)
	}
	set, err := parseQuery(query, "creds", "ca", "replicas")
	o.CredsFile, o.CAFile = set["creds"], set["ca"]
	if v, given := set["replicas"]; given {
		if o.Replicas, err = strconv.Atoi(v); err != nil || o.Replicas == 0 {
			return o, fmt.Errorf("replicas %q: must be 1, 3 or 5", v)
		}
	}
	return o, err
}

// setUser takes user:password or token. Its errors must not repeat them.
func (o *Options) setUser(s string) error {
	name, pass, both := strings.Cut(s, ":")
	name, err := url.PathUnescape(name)
	if err == nil {
		pass, err = url.PathUnescape(pass)
	}
	if err != nil {
		return fmt.Errorf("user or password: not percent-encoded as in URLs")
	}
	if both {
		o.User, o.Password = name, pass
	} else {
		o.Token = name
	}
	return nil
}

// serverAddr is host:port of a server in a URL; the port may be absent.
func serverAddr(s string) (string, error) {
	host, port := s, strconv.Itoa(DefaultPort)
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if host == "" || strings.ContainsAny(host, "/@ ") {
		return "", fmt.Errorf("server %q: want host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("server %q: port must be 1 to 65535", s)
	}
	return net.JoinHostPort(host, port), nil
}

// parseQuery reads the settings behind a '?', of which these are known.
func parseQuery(query string, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("what follows '?': %w", err)
	}
	set := make(map[string]string)
	for key, vs := range values {
		switch {
		case !slices.Contains(known, key):
			return nil, fmt.Errorf("%q: no such setting", key)
		case len(vs) != 1:
			return nil, fmt.Errorf("%s: given twice", key)
		case vs[0] == "":
			return nil, fmt.Errorf("%s: has no value", key)
		}
		set[key] = vs[0]
	}
	return set, nil
}

// checkLoopback: the listener of an embedded server is for programs of the same
// machine; a network needs a cluster's security.
func checkLoopback(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("want host:port: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("must be a loopback address such as 127.0.0.1")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port must be 0 to 65535")
	}
	return nil
}

// withDefaults returns o checked and complete.
func (o Options) withDefaults() (Options, error) {
	switch {
	case (o.Dir == "") == (len(o.Servers) == 0):
		return o, fmt.Errorf("jetstream: either a folder or servers must be given")
	case o.AckWait != 0 && (o.AckWait < 100*time.Millisecond || o.AckWait > time.Hour):
		return o, fmt.Errorf("jetstream: ack wait %v: must be 100ms to 1h", o.AckWait)
	case o.Timeout < 0:
		return o, fmt.Errorf("jetstream: timeout %v: must not be negative", o.Timeout)
	}
	if o.Listen != "" {
		if err := checkLoopback(o.Listen); err != nil {
			return o, fmt.Errorf("jetstream: listen %q: %w", o.Listen, err)
		}
	}
	o.Replicas = cmp.Or(o.Replicas, DefaultReplicas)
	if n := o.Replicas; n != 1 && n != 3 && n != 5 {
		return o, fmt.Errorf("jetstream: replicas %d: must be 1, 3 or 5", n)
	}
	ackWait := DefaultAckWait
	if o.Dir != "" {
		o.Replicas = 1 // one server has one copy
		ackWait = DefaultEmbeddedAckWait
	}
	o.AckWait = cmp.Or(o.AckWait, ackWait)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o, nil
}
