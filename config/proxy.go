package config

import (
	"cmp"
	"errors"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"propeller/apnsconn"
)

// proxyNone is the value of proxy that switches the environment's off.
const proxyNone = "none"

// setProxy sets the proxy that a key gives; the text is never quoted.
func setProxy(a *App, text string) error {
	switch text {
	case "":
		return errEmpty
	case proxyNone:
		a.Proxy = SecretURL{}
		return nil
	}
	u, err := apnsconn.ParseProxy(text)
	if err != nil {
		return errCause{proxyFault(err) + "; or none, for no proxy", err}
	}
	a.Proxy = SecretURL{u}
	return nil
}

// proxyFault is an error of apnsconn.ParseProxy without what a fault's key says.
func proxyFault(err error) string {
	return strings.TrimPrefix(err.Error(), "apnsconn: proxy: ")
}

// checkProxy takes the environment's proxy for an app that names none.
func (p *parser) checkProxy(d *draft) {
	if d.Mock() { // inside this process; a proxy among the defaults is for the others
		d.Proxy = SecretURL{}
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
	d.Proxy = SecretURL{u}
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
