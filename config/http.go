package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"propeller/internal/keysize"
)

// HTTP says how the daemon is reached over HTTP; without Listen it is not.
type HTTP struct {
	// Listen is host:port, port 0 being one that the system chooses, or unix: and
	// the absolute path of a socket.
	Listen string `yaml:"listen"`
	// AuthToken is the key of a client that may do everything, and the auth_token
	// of form clients; empty for none.
	AuthToken Secret `yaml:"auth_token"`
	// Keys are more of them, each for less. Without any key Listen is loopback or
	// a socket.
	Keys []HTTPKey `yaml:"keys"`
	// TLSCert and TLSKey are .pem files that exist as long as the daemon does;
	// both or none is given.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`
	// TrustedProxies are believed about whom they ask for.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// BasePath is where a proxy serves the daemon, "/a/b"; "" for "/".
	BasePath string `yaml:"base_path"`
	PProf    bool   `yaml:"pprof"` // serves profiles of the process
	// HSTS has browsers come by TLS only from then on, for a year.
	HSTS bool `yaml:"hsts"`
}

// HTTPKey is what one client shows, and may do.
type HTTPKey struct {
	Name   string   `yaml:"name"` // for the log
	Token  Secret   `yaml:"token"`
	Role   string   `yaml:"role"`   // RoleRead, RoleSend or RoleAdmin
	Topics []string `yaml:"topics"` // the apps that it is for; nil: all
	Rate   int      `yaml:"rate"`   // notifications a second, 1 to MaxRate; 0: no limit
}

// The values of HTTPKey.Role, each of which may do what those before may.
const (
	RoleRead  = "read"  // look
	RoleSend  = "send"  // put jobs
	RoleAdmin = "admin" // change what runs, and see whole device tokens
)

const (
	socketPrefix = "unix:"
	// minToken: nobody tries all texts of 8 characters over a network.
	minToken = 8
	// maxToken is far below what servers take for a header.
	maxToken = 1024
	// MaxRate: more is no limit.
	MaxRate = 1_000_000
	// maxKeys: each request's token is compared with all of them.
	maxKeys = 100
	// maxProxies: each request's address is compared with all of them.
	maxProxies = 100
	// maxSocket is the longest path of a socket in bytes: sockaddr_un has 108 on
	// Linux (unix(7)), 104 on BSD and macOS, with the byte that ends it.
	maxSocket = 103
)

// httpFields are the keys below http that hold one value.
func httpFields() []field[Config] {
	return []field[Config]{
		{key: "http.listen", set: plain(func(c *Config) *string { return &c.HTTP.Listen })},
		{key: "http.auth_token", secret: true, set: func(c *Config, s string) error { return setToken(&c.HTTP.AuthToken, s) }},
		{key: "http.tls_cert", path: true, set: plain(func(c *Config) *string { return &c.HTTP.TLSCert })},
		{key: "http.tls_key", path: true, set: plain(func(c *Config) *string { return &c.HTTP.TLSKey })},
		{key: "http.base_path", set: setBasePath},
		{key: "http.pprof", set: func(c *Config, s string) error { return setBool(&c.HTTP.PProf, s) }},
		{key: "http.hsts", set: func(c *Config, s string) error { return setBool(&c.HTTP.HSTS, s) }},
	}
}

// httpLists are the keys below http that hold lists.
var httpLists = []string{"http.keys", "http.trusted_proxies"} // never written to

// keyFields are the keys of an entry of http.keys that hold one value.
func keyFields() []field[HTTPKey] {
	return []field[HTTPKey]{
		{key: "name", set: setKeyName},
		{key: "token", secret: true, set: func(k *HTTPKey, s string) error { return setToken(&k.Token, s) }},
		{key: "role", set: word(func(k *HTTPKey) *string { return &k.Role }, RoleRead, RoleSend, RoleAdmin)},
		{key: "rate", set: number(func(k *HTTPKey) *int { return &k.Rate }, 1, MaxRate, "it counts notifications a second; without the key there is no limit")},
	}
}

func setToken(at *Secret, s string) error {
	switch {
	case len(s) < minToken || len(s) > maxToken:
		return fmt.Errorf("must have from %d to %d bytes: take what openssl rand -hex 16 prints", minToken, maxToken)
	case strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return errors.New("must be letters, digits and other characters of ASCII without blanks, since a header carries it")
	}
	*at = NewSecret(s)
	return nil
}

// AuthTokenName is how the log calls the client with auth_token.
const AuthTokenName = "auth_token"

var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$`)

func setKeyName(k *HTTPKey, s string) error {
	if !keyName.MatchString(s) || s == AuthTokenName {
		return errors.New("must be up to 64 letters, digits and inner _ . @ -, and not " + AuthTokenName)
	}
	k.Name = s
	return nil
}

var cleanPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

func setBasePath(c *Config, s string) error {
	if !cleanPath.MatchString(s) || path.Clean(s) != s {
		return errors.New("must be a path such as /propeller, without a slash at its end")
	}
	c.HTTP.BasePath = s
	return nil
}

func setBool(at *bool, s string) error {
	if s != "true" && s != "false" {
		return errors.New("must be true or false")
	}
	*at = s == "true"
	return nil
}

// httpKeys reads the list of keys.
func (p *parser) httpKeys(kv pair) (keys []HTTPKey, places []entry) {
	if kv.val.Kind != yaml.SequenceNode {
		p.at(kv.val.Line, kv.path, `must be a list whose entries start with "- name: …", not %s`, kindOf(kv.val))
		return nil, nil
	}
	if len(kv.val.Content) > maxKeys {
		p.at(kv.val.Line, kv.path, "more than %d keys: every request is compared with each", maxKeys)
		return nil, nil
	}
	s := schemaOf("under a key", keyFields(), "topics")
	for i, n := range kv.val.Content {
		at := entry{key: fmt.Sprintf("%s[%d]", kv.path, i), line: n.Line}
		var k HTTPKey
		l := p.layer(n, at.key, s, func(sub pair) bool {
			if sub.full == "topics" {
				k.Topics = p.list(sub)
			}
			return sub.full == "topics"
		})
		bad := assign(p, l, keyFields(), &k)
		for _, name := range []string{"name", "token", "role"} {
			_, given := l[name]
			_, inFile := l[name+fileSuffix]
			if !given && !inFile && !bad[name] {
				p.wrong(entry{key: at.key + "." + name, line: at.line}, errors.New("is missing"))
			}
		}
		keys, places = append(keys, k), append(places, at)
	}
	return keys, places
}

// list reads a list of plain values, which is not empty.
func (p *parser) list(kv pair) []string {
	if kv.val.Kind != yaml.SequenceNode || len(kv.val.Content) == 0 {
		p.at(kv.val.Line, kv.path, "must be a list of at least one value, not %s", kindOf(kv.val))
		return nil
	}
	var out []string
	for i, n := range kv.val.Content {
		if e, ok := p.scalar(n, fmt.Sprintf("%s[%d]", kv.path, i)); ok {
			if text, ok := p.text(e); ok {
				out = append(out, text)
			}
		}
	}
	return out
}

// proxies reads the list of trusted proxies.
func (p *parser) proxies(kv pair) []netip.Prefix {
	texts := p.list(kv)
	if len(texts) > maxProxies {
		p.at(kv.val.Line, kv.path, "more than %d: every request is compared with each", maxProxies)
		return nil
	}
	var out []netip.Prefix
	for _, text := range texts {
		prefix, err := proxyPrefix(text)
		if err != nil {
			p.wrong(entry{text: text, key: kv.path, line: kv.val.Line}, errors.New("must be an IP address, or a network such as 10.0.0.0/8"))
			continue
		}
		out = append(out, prefix)
	}
	return out
}

// proxyPrefix reads an address or a network. Of one that is mapped into IPv6
// (RFC 4291, section 2.5.5.2) it is the network of IPv4, as clients' addresses are.
func proxyPrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return addr.Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || !prefix.Addr().Is4In6() {
		return prefix.Masked(), err
	}
	return prefix.Addr().Unmap().Prefix(prefix.Bits() - 96) // an error below 96
}

// wide says that so many hosts are in a network that it cannot be that of proxies: more
// than in the largest private one.
func wide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < 8 // 10.0.0.0/8
	}
	return p.Bits() < 7 // fc00::/7
}

// checkHTTP completes http and finds what does not go together. at says where
// each key's entry is.
func (p *parser) checkHTTP(l layer, bad map[string]bool, cfg *Config, at []entry) {
	h := &cfg.HTTP
	place := func(key string) entry {
		if e, ok := l[key]; ok {
			return e
		}
		return entry{key: key}
	}
	if h.Listen == "" {
		if !bad["http.listen"] {
			p.orphanHTTP(l, cfg)
		}
		return
	}
	local, err := p.listen(h)
	if err != nil {
		p.wrong(place("http.listen"), err)
		return
	}
	p.checkTLS(h, place)
	p.checkKeys(cfg, at)
	if p.bare {
		return
	}
	for _, proxy := range h.TrustedProxies {
		if wide(proxy) {
			cfg.Warnings = append(cfg.Warnings, fmt.Sprintf("http.trusted_proxies has %v: any client there can claim any address, and by TLS; name the proxies", proxy))
		}
	}
	if _, socket := strings.CutPrefix(h.Listen, socketPrefix); h.HSTS && h.TLSCert == "" && len(h.TrustedProxies) == 0 && !socket {
		p.wrong(place("http.hsts"), errors.New("does nothing without TLS: give tls_cert and tls_key, or trusted_proxies if something before it speaks TLS"))
	}
	open := h.AuthToken.IsZero() && len(h.Keys) == 0 && !bad["http.auth_token"]
	switch {
	case local:
	case open:
		p.wrong(place("http.listen"), errors.New("other machines could send pushes: give http.auth_token or http.keys, or listen on 127.0.0.1"))
	case h.TLSCert == "" && len(h.TrustedProxies) == 0:
		cfg.Warnings = append(cfg.Warnings, "http.listen is open to other machines without TLS: tokens go there unencrypted; give tls_cert and tls_key, or trusted_proxies if something before it speaks TLS")
	}
}

// orphanHTTP finds keys of http that do nothing without listen.
func (p *parser) orphanHTTP(l layer, cfg *Config) {
	for _, f := range httpFields() {
		for _, key := range []string{f.key, f.key + fileSuffix} {
			if e, ok := l[key]; ok {
				p.wrong(e, errors.New("does nothing without http.listen: give that, or remove this"))
			}
		}
	}
	if len(cfg.HTTP.Keys) > 0 || len(cfg.HTTP.TrustedProxies) > 0 {
		p.wrong(entry{key: "http"}, errors.New("does nothing without listen: give that, or remove the rest"))
	}
}

// listen checks where to listen and says whether that is this machine only.
func (p *parser) listen(h *HTTP) (local bool, err error) {
	if file, ok := strings.CutPrefix(h.Listen, socketPrefix); ok {
		if file == "" {
			return true, errors.New("has no path: write unix:/run/propeller/http.sock")
		}
		file = p.path(file)
		if len(file) > maxSocket {
			return true, fmt.Errorf("the path has %d bytes, a socket's has at most %d", len(file), maxSocket)
		}
		h.Listen = socketPrefix + file
		return true, nil
	}
	host, port, err := net.SplitHostPort(h.Listen)
	if err != nil {
		return false, errors.New("must be host:port, like 127.0.0.1:8080, or unix:/path")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return false, errors.New("the port must be a number up to 65535")
	}
	return loopback(host), nil
}

// checkTLS finds out whether the certificate and its key can be used.
func (p *parser) checkTLS(h *HTTP, place func(string) entry) {
	switch {
	case h.TLSCert == "" && h.TLSKey == "":
		return
	case h.TLSKey == "":
		p.wrong(place("http.tls_cert"), errors.New("needs http.tls_key beside it"))
		return
	case h.TLSCert == "":
		p.wrong(place("http.tls_key"), errors.New("needs http.tls_cert beside it"))
		return
	case p.bare:
		return
	}
	var pem [2][]byte
	for i, f := range []struct{ key, path string }{{"http.tls_cert", h.TLSCert}, {"http.tls_key", h.TLSKey}} {
		data, err := readFile(f.path, maxFile)
		if err != nil {
			p.wrong(place(f.key), p.hint(place(f.key).text, err))
			return
		}
		pem[i] = data
	}
	if _, err := keysize.Pair(pem[0], pem[1]); err != nil { // its text quotes nothing of the key
		p.wrong(place("http.tls_cert"), errCause{"is not usable with http.tls_key: " + err.Error(), err})
	}
}

// checkKeys compares the keys with each other and with the apps.
func (p *parser) checkKeys(cfg *Config, at []entry) {
	topics := make(map[string]bool, len(cfg.Apps))
	for i := range cfg.Apps {
		topics[cfg.Apps[i].Topic] = true
	}
	names, tokens := map[string]string{}, map[string]string{}
	if t := cfg.HTTP.AuthToken; !t.IsZero() {
		tokens[t.Reveal()] = "http.auth_token"
	}
	for i, k := range cfg.HTTP.Keys {
		say := func(key, format string, args ...any) {
			p.wrong(entry{key: at[i].key + "." + key, line: at[i].line}, fmt.Errorf(format, args...))
		}
		if first, ok := names[k.Name]; ok && k.Name != "" {
			say("name", "the name of %s too: the log could not tell them apart", first)
		}
		names[k.Name] = at[i].key
		if first, ok := tokens[k.Token.Reveal()]; ok && !k.Token.IsZero() {
			say("token", "the token of %s too: give each its own", first)
		}
		tokens[k.Token.Reveal()] = at[i].key
		for _, topic := range k.Topics {
			if !topics[topic] {
				say("topics", "no app has the topic %.60q", topic)
			}
		}
	}
}
