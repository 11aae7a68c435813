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
	"propeller/internal/neterr"
)

const (
	socketPrefix = "unix:"
	// minToken: nobody tries all texts of 8 characters over a network.
	minToken = 8
	// maxToken is far below what servers take for a header.
	maxToken = 1024
	// maxKeys: each request's token is compared with all of them.
	maxKeys = 100
	// maxProxies: each request's address is compared with all of them.
	maxProxies = 100
	// maxSocket is the longest path of a socket in bytes: sockaddr_un has 108 on
	// Linux (unix(7)), 104 on BSD and macOS, with the byte that ends it.
	maxSocket = 103
)

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

var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$`)

// setClient reads the name of a key.
func setClient(at *string, s string) error {
	if !keyName.MatchString(s) || s == AuthTokenName {
		return errors.New("must be up to 64 letters, digits and inner _ . @ -, and not " + AuthTokenName)
	}
	*at = s
	return nil
}

var cleanPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

func setBasePath(at *string, s string) error {
	if !cleanPath.MatchString(s) || path.Clean(s) != s {
		return errors.New("must be a path such as /propeller, without a slash at its end")
	}
	*at = s
	return nil
}

// http reads the lists below http, completes it, and finds what does not go together.
func (p *parser) http(l layer, several map[string]pair, bad map[string]bool, cfg *Config) {
	if kv, ok := several["http.keys"]; ok {
		cfg.HTTP.Keys = p.httpKeys(kv, cfg)
	}
	if kv, ok := several["http.trusted_proxies"]; ok {
		cfg.HTTP.TrustedProxies = p.proxies(kv)
	}
	if !bad["http.listen"] {
		p.checkHTTP(l, bad, cfg)
	}
}

// httpKeys reads the list of keys, and compares them with each other and with the apps.
func (p *parser) httpKeys(kv pair, cfg *Config) (keys []HTTPKey) {
	if kv.val.Kind != yaml.SequenceNode {
		p.at(kv.val.Line, kv.path, `must be a list whose entries start with "- name: …", not %s`, kindOf(kv.val))
		return nil
	}
	if len(kv.val.Content) > maxKeys {
		p.at(kv.val.Line, kv.path, "more than %d keys: every request is compared with each", maxKeys)
		return nil
	}
	t := &table{fields: keyFields, where: "under a key"}
	names, tokens := map[string]string{}, map[string]string{cfg.HTTP.AuthToken.Reveal(): "http.auth_token"}
	apps, topics := map[string]bool{}, map[string]bool{}
	for i := range cfg.Apps {
		apps[cfg.Apps[i].Name], topics[cfg.Apps[i].Topic] = true, true
	}
	for i, n := range kv.val.Content {
		path := fmt.Sprintf("%s[%d]", kv.path, i)
		say := func(key, format string, args ...any) { p.at(n.Line, path+"."+key, format, args...) }
		var k HTTPKey
		l, several := p.layer(n, path, t)
		bad := p.assign(l, keyFields, &k)
		for _, name := range []string{"name", "token", "role"} {
			_, given := l[name]
			_, inFile := l[name+fileSuffix]
			if !given && !inFile && !bad[name] {
				say(name, "is missing")
			}
		}
		if list, ok := several["apps"]; ok {
			k.Apps = p.texts(list)
		}
		if list, ok := several["topics"]; ok {
			k.Topics = p.texts(list)
			if k.Apps != nil {
				say("topics", "given together with apps: name the apps by one of the two")
			}
		}
		for _, app := range k.Apps {
			switch {
			case apps[app]:
			case topics[app]:
				say("apps", "%.60q is no app's name but a topic: give topics for every app of it, or the names", app)
			default:
				say("apps", "no app has the name %.60q", app)
			}
		}
		for _, topic := range k.Topics {
			if !topics[topic] {
				say("topics", "no app has the topic %.60q", topic)
			}
		}
		if first, ok := names[k.Name]; ok && k.Name != "" {
			say("name", "the same name as %s: the log could not tell them apart", first)
		}
		if first, ok := tokens[k.Token.Reveal()]; ok && !k.Token.IsZero() {
			say("token", "the same token as %s: give each its own", first)
		}
		names[k.Name], tokens[k.Token.Reveal()] = path, path
		keys = append(keys, k)
	}
	return keys
}

// list returns the entries of a list of plain values, which has one at least.
func (p *parser) list(kv pair) (all []entry) {
	if kv.val.Kind != yaml.SequenceNode {
		p.at(kv.val.Line, kv.path, "must be a list of values, not %s", kindOf(kv.val))
		return nil // what is in it may be a secret
	}
	if len(kv.val.Content) == 0 {
		p.at(kv.val.Line, kv.path, "is an empty list: give a value or remove the key")
	}
	for i, n := range kv.val.Content {
		if e, ok := p.scalar(n, fmt.Sprintf("%s[%d]", kv.path, i)); ok {
			all = append(all, e)
		}
	}
	return all
}

// texts are what the entries of a list stand for.
func (p *parser) texts(kv pair) (all []string) {
	for _, e := range p.list(kv) {
		if text, ok := p.text(e); ok {
			all = append(all, text)
		}
	}
	return all
}

// proxies reads the list of trusted proxies.
func (p *parser) proxies(kv pair) (all []netip.Prefix) {
	entries := p.list(kv)
	if len(entries) > maxProxies {
		p.at(kv.val.Line, kv.path, "more than %d: every request is compared with each", maxProxies)
		return nil
	}
	for _, e := range entries {
		text, ok := p.text(e)
		if !ok {
			continue
		}
		prefix, err := proxyPrefix(text)
		if err != nil {
			p.wrong(e, errors.New("must be an IP address, or a network such as 10.0.0.0/8"))
			continue
		}
		all = append(all, prefix)
	}
	return all
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

// checkHTTP completes http and finds what does not go together.
func (p *parser) checkHTTP(l layer, bad map[string]bool, cfg *Config) {
	h := &cfg.HTTP
	place := func(key string) entry {
		if e, ok := l[key]; ok {
			return e
		}
		return entry{key: key}
	}
	if h.Listen == "" {
		p.orphanHTTP(l, cfg)
		return
	}
	local, err := p.listen(h)
	if err != nil {
		p.wrong(place("http.listen"), err)
		return
	}
	p.checkTLS(h, place)
	if p.WithoutCredentials {
		return
	}
	for _, proxy := range h.TrustedProxies {
		if wide(proxy) {
			cfg.Warnings = append(cfg.Warnings, fmt.Sprintf("http.trusted_proxies has %v: any client there can claim any address, and that it came by TLS; list your proxies only", proxy))
		}
	}
	if _, socket := strings.CutPrefix(h.Listen, socketPrefix); h.HSTS && h.TLSCert == "" && len(h.TrustedProxies) == 0 && !socket {
		p.wrong(place("http.hsts"), errors.New("does nothing without TLS: give tls_cert and tls_key, or trusted_proxies if something before it speaks TLS"))
	}
	open := h.AuthToken.IsZero() && len(h.Keys) == 0 && !bad["http.auth_token"]
	switch {
	case local:
	case open && l["http.listen"].flag:
		p.wrong(place("http.listen"), errors.New("other machines could send pushes: listen on 127.0.0.1 or unix:PATH, or use a file (-c) with http.listen and http.auth_token"))
	case open:
		p.wrong(place("http.listen"), errors.New("other machines could send pushes: give http.auth_token or http.keys, or listen on 127.0.0.1"))
	case h.TLSCert == "" && len(h.TrustedProxies) == 0:
		cfg.Warnings = append(cfg.Warnings, "http.listen is open to other machines without TLS: tokens go there unencrypted; give tls_cert and tls_key, or trusted_proxies if something before it speaks TLS")
	}
}

// orphanHTTP finds keys of http that do nothing without listen.
func (p *parser) orphanHTTP(l layer, cfg *Config) {
	for _, f := range configFields {
		for _, key := range f.names() {
			if e, ok := l[key]; ok && strings.HasPrefix(key, "http.") {
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
	case p.WithoutCredentials:
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
		p.wrong(place("http.tls_cert"), neterr.Reworded("is not usable with http.tls_key: "+err.Error(), err))
	}
}
