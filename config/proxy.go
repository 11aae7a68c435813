package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"propeller/apnsconn"
)

// proxyNone is the value of proxy that switches the environment's off.
const proxyNone = "none"

// Proxy is the HTTP proxy on the way to APNs; the zero value is none. Its user
// and password cannot be printed by accident: fmt with any verb, JSON, YAML,
// text encoders and slog all show http://[secret]@host:port. Only URL gives
// them away.
//
// The URL stands behind a pointer of an unexported field for the reason that
// Secret's text does.
type Proxy struct{ url *url.URL }

// URL returns the proxy's URL with user and password, nil for none. It must not
// be written to.
func (p Proxy) URL() *url.URL { return p.url }

// IsZero reports whether there is no proxy.
func (p Proxy) IsZero() bool { return p.url == nil }

// String returns the URL with its user and password masked; "" for none.
func (p Proxy) String() string {
	switch {
	case p.url == nil:
		return ""
	case p.url.User != nil:
		return p.url.Scheme + "://" + redacted + "@" + p.url.Host
	}
	return p.url.Scheme + "://" + p.url.Host
}

// Format prints String whatever the verb and flags.
func (p Proxy) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", p.String())
		return
	}
	io.WriteString(f, p.String())
}

// MarshalText returns String; JSON, YAML and XML encoders use it.
func (p Proxy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// LogValue returns String for slog.
func (p Proxy) LogValue() slog.Value { return slog.StringValue(p.String()) }

// same compares the whole URLs.
func (p Proxy) same(other Proxy) bool {
	if p.url == nil || other.url == nil {
		return p.url == other.url
	}
	return p.url.String() == other.url.String()
}

// setProxy sets the proxy that a key gives; the text is never quoted.
func setProxy(a *App, text string) error {
	switch text {
	case "":
		return errEmpty
	case proxyNone:
		a.Proxy = Proxy{}
		return nil
	}
	u, err := apnsconn.ParseProxy(text)
	if err != nil {
		return errCause{proxyFault(err) + "; or none, for no proxy", err}
	}
	a.Proxy = Proxy{u}
	return nil
}

// proxyFault is an error of apnsconn.ParseProxy without what a fault's key says.
func proxyFault(err error) string {
	return strings.TrimPrefix(err.Error(), "apnsconn: proxy: ")
}

// checkProxy takes the environment's proxy for an app that names none.
func (p *parser) checkProxy(d *draft) {
	if d.Mock() { // inside this process; a proxy among the defaults is for the others
		d.Proxy = Proxy{}
		return
	}
	if d.has("proxy") || d.has("proxy"+fileSuffix) || d.Addr == "" {
		return
	}
	name, text := p.environment("HTTPS_PROXY", "https_proxy")
	_, not := p.environment("NO_PROXY", "no_proxy")
	// The rules of NO_PROXY, and that loopback has no proxy, are httpproxy's.
	// The proxy itself is read here: httpproxy takes a faulty one for none.
	rules := httpproxy.Config{HTTPSProxy: "http://proxy", NoProxy: not}
	if through, err := rules.ProxyFunc()(&url.URL{Scheme: "https", Host: d.Addr}); text == "" || through == nil || err != nil {
		return
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text // as everybody writes it
	}
	u, err := apnsconn.ParseProxy(text)
	if err != nil {
		at := d.at("proxy")
		at.secret = true
		p.wrong(at, errors.New("the environment variable "+name+" is wrong: "+proxyFault(err)+"; correct it, or set proxy: none"))
		return
	}
	d.Proxy = Proxy{u}
}

// environment returns the first of the variables that is not empty.
func (p *parser) environment(upper, lower string) (name, value string) {
	u, _ := p.getenv(upper)
	l, _ := p.getenv(lower)
	if u == "" && l != "" {
		name = lower
	}
	return cmp.Or(name, upper), cmp.Or(u, l)
}
