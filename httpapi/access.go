package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Role says what a client may do; each includes those before.
type Role int

// The roles.
const (
	roleNone  Role = iota // what everybody may
	RoleRead              // look
	RoleSend              // put jobs
	RoleAdmin             // change what runs, and see whole device tokens
)

// String is the role as the configuration has it.
func (r Role) String() string { return [...]string{"none", "read", "send", "admin"}[r] }

// Key is what one client shows, and may do.
type Key struct {
	Name   string // for the log
	Token  string
	Role   Role
	Apps   []string // names of the apps that it is for; empty: all, unless Topics says which
	Topics []string // the same by their topics; one of the two is empty
	Rate   int      // notifications a second; 0: no limit
}

// Settings are what a reload may change under a running server.
type Settings struct {
	// Keys of the clients. Without any, every client on this machine is an admin.
	Keys []Key
	// TrustedProxies are believed about their clients' addresses; so is any peer that connects
	// through a Unix socket.
	TrustedProxies []netip.Prefix
	// BasePath is where a proxy serves the daemon: "/a/b", or "".
	BasePath string
	HSTS     bool // tell browsers to come by TLS only
	PProf    bool // serve profiles of the process
	Closed   bool // nobody is admitted: the configuration no longer has http.listen
}

// client is who makes a request.
type client struct {
	name   string
	role   Role
	apps   []string // nil, as topics: all apps
	topics []string
	limit  *rate.Limiter

	browser bool // asks as the page does, not as the API's clients do
	signed  bool // has signed in at the page
}

// errRate: a client has used up its limit.
var errRate = errors.New("over its rate")

func (c *client) overRate() error {
	return fmt.Errorf("key %q: %w of %v notifications per second", c.name, errRate, float64(c.limit.Limit()))
}

// pay charges the limit for jobs that a notification is besides its first, before any
// of them is put.
func (c *client) pay(jobs int) error {
	if !c.limit.AllowN(time.Now(), jobs) {
		return c.overRate()
	}
	return nil
}

// owe is pay for a stream: its jobs are put whether there is room for them or not, and
// what it sends next waits for it.
func (c *client) owe(jobs int) error {
	c.limit.ReserveN(time.Now(), jobs)
	return nil
}

// access is Settings made ready.
type access struct {
	Settings
	keys    []accessKey
	proxied sync.Once // a proxy that is not trusted has been warned of
}

type accessKey struct {
	sum [sha256.Size]byte // of the token: of one length, whatever the token's
	client
	session func() []byte // what signs its sessions: made when it is first needed
}

// newAccess makes settings ready. A client whose limit stays the same keeps what it
// has used of it, and a key that stays the same what was derived from it.
func newAccess(s Settings, before *access) *access {
	a := &access{Settings: s}
	var deriving sync.Mutex
	for _, k := range s.Keys {
		c := client{name: k.Name, role: k.Role, limit: rate.NewLimiter(rate.Inf, 0)}
		if len(k.Apps) > 0 {
			c.apps = k.Apps
		}
		if len(k.Topics) > 0 {
			c.topics = k.Topics
		}
		if k.Rate > 0 {
			c.limit = rate.NewLimiter(rate.Limit(k.Rate), max(k.Rate, maxItems))
			if before != nil {
				c.limit = before.limitOf(k.Name, c.limit)
			}
		}
		key := accessKey{sum: sha256.Sum256([]byte(k.Token)), client: c}
		if key.session = before.sessionOf(key.sum, k.Name); key.session == nil {
			key.session = sync.OnceValue(func() []byte {
				deriving.Lock() // it takes 19 MiB
				defer deriving.Unlock()
				return sessionKey(k.Name, k.Token)
			})
		}
		a.keys = append(a.keys, key)
	}
	return a
}

func (a *access) sessionOf(sum [sha256.Size]byte, name string) func() []byte {
	if a == nil {
		return nil
	}
	for i := range a.keys {
		if k := &a.keys[i]; k.sum == sum && k.name == name {
			return k.session
		}
	}
	return nil
}

func (a *access) limitOf(name string, otherwise *rate.Limiter) *rate.Limiter {
	for i := range a.keys {
		if k := &a.keys[i]; k.name == name && k.limit.Limit() == otherwise.Limit() {
			return k.limit
		}
	}
	return otherwise
}

// find returns the key with this token; nil if there is none. It takes the same time
// wherever they differ.
func (a *access) find(token string) *accessKey {
	sum := sha256.Sum256([]byte(token))
	var found *accessKey
	for i := range a.keys {
		if subtle.ConstantTimeCompare(sum[:], a.keys[i].sum[:]) == 1 {
			found = &a.keys[i]
		}
	}
	return found
}

// identify returns the client that makes a request: by its bearer token or, without keys
// in the configuration, because it comes from this machine. nil: unknown.
func (a *access) identify(r *http.Request) *client {
	if len(a.keys) == 0 {
		if !a.Closed && fromHere(r) {
			return newLocal("local")
		}
		return nil
	}
	token, ok := bearer(r)
	if !ok {
		return nil
	}
	if k := a.find(token); k != nil {
		return &k.client
	}
	return nil
}

// newLocal is an admin without a key.
func newLocal(name string) *client {
	return &client{name: name, role: RoleAdmin, limit: rate.NewLimiter(rate.Inf, 0)}
}

// bearer is the token of the header Authorization (RFC 6750, section 2.1).
func bearer(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// proxyHeaders are what proxies add (RFC 9110, section 7.6.3; RFC 7239; the others
// by custom).
var proxyHeaders = []string{ // never written to
	"Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-Ip",
}

// passedOn says that a proxy shows that it passes a request on. One may keep
// silent: then nothing tells what it passes on from a program's on this machine.
// nginx, unless it is told otherwise, adds no header and speaks HTTP/1.0
// (ngx_http_proxy_module, proxy_http_version; before 1.29.7).
func passedOn(r *http.Request) bool {
	return !r.ProtoAtLeast(1, 1) || slices.ContainsFunc(proxyHeaders, func(name string) bool { return len(r.Header[name]) > 0 })
}

// fromHere says that a request without a key was made by a program on this
// machine, as far as can be seen. A web page that a browser on this machine
// shows, by a name that leads here (DNS rebinding) or across origins, and a proxy
// that passes on what comes from elsewhere, are not meant.
func fromHere(r *http.Request) bool {
	if passedOn(r) {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return false
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return false
		}
	}
	if overSocket(r) {
		return true
	}
	// The listener may be an earlier one, from before a reload took the keys away.
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// overSocket says that a request came by a Unix socket.
func overSocket(r *http.Request) bool {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addr != nil && addr.Network() == "unix"
}

// remote is the address that a request came from: that of the client, if a
// proxy that is trusted tells it. It is for the log.
func (a *access) remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if !overSocket(r) && !a.trusts(host) {
		return host
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		ip, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		host = ip.String()
		if !a.trusts(host) {
			break
		}
	}
	if host == "" || host == "@" {
		return "socket"
	}
	return host
}

// untrusted is the peer of a request that a proxy has passed on, if that proxy is
// not trusted; "" for others.
func (a *access) untrusted(r *http.Request) string {
	if len(r.Header["X-Forwarded-For"]) == 0 || overSocket(r) {
		return ""
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || a.trusts(host) {
		return ""
	}
	return host
}

// overTLS says that the client's own connection is encrypted: to here, or to a
// proxy that is trusted and says so.
func (a *access) overTLS(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	trusted := overSocket(r) || err == nil && a.trusts(host)
	return trusted && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

func (a *access) trusts(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && a.trustsAddr(ip)
}

func (a *access) trustsAddr(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(a.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Bounds of wrong keys, over all connections. They make guessing dear and seen; what
// makes it hopeless is the length of the keys. A right key is never refused, since
// strangers may have the same address: that of a proxy.
const (
	wrongRate  = 10 // are answered a second
	wrongBurst = 20
	// wrongWait is how long an answer waits for its turn; one that would wait
	// longer is not given, and the connection ends.
	wrongWait = 2 * time.Second
	// wrongLog is how often wrong keys have a line in the log.
	wrongLog = time.Minute
)

// wrongKeys counts the recent ones, in headers and in forms.
type wrongKeys struct {
	log   *slog.Logger
	limit *rate.Limiter

	mu       sync.Mutex
	n        int    // that the log does not tell of yet
	from, at string // the last one's address, and request as routes have it
	waits    bool   // for the next line
}

func newWrongKeys(log *slog.Logger) *wrongKeys {
	return &wrongKeys{log: log, limit: rate.NewLimiter(wrongRate, wrongBurst)}
}

// wrong notes a request from an address with a wrong key, and returns when it may be
// answered. If there are too many it is not: its end comes by
// http.ErrAbortHandler.
func (k *wrongKeys) wrong(r *http.Request, from string) {
	k.note(from, r.Pattern)
	r.Form, r.PostForm, r.MultipartForm = nil, nil, nil // which may be large, while it waits
	turn := k.limit.Reserve()
	if turn.Delay() > wrongWait {
		turn.Cancel()
		sendAway(r)
		panic(http.ErrAbortHandler)
	}
	timer := time.NewTimer(turn.Delay())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-ending(r).Done():
	}
}

func (k *wrongKeys) note(from, at string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	k.from, k.at = from, at
	if !k.waits {
		k.tell()
	}
}

// tell logs the wrong keys since the last time, and sees to the next time.
func (k *wrongKeys) tell() {
	k.log.Warn("http: wrong keys", "from", k.from, "at", k.at, "keys", k.n)
	k.n, k.waits = 0, true
	time.AfterFunc(wrongLog, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.waits = k.n > 0; k.waits {
			k.tell()
		}
	})
}
