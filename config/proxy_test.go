package config

import (
	"strings"
	"testing"
)

func pemFor(t *testing.T, topic string, production bool) []byte {
	t.Helper()
	m := made{uid: topic, production: production}.make(t)
	return append(m.certPEM(), m.keyPEM(t)...)
}

// proxyOf is the proxy of the one app of a file, in clear.
func proxyOf(t *testing.T, app string, environment map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "app.pem", pemFor(t, "com.example.app", !strings.Contains(app, "sandbox")))
	cfg := mustParse(t, "apps:\n  - {topic: com.example.app, cert: app.pem"+app+"}\n", Options{Dir: dir, Getenv: env(environment)})
	if u := cfg.Apps[0].Proxy.URL(); u != nil {
		return u.String()
	}
	return ""
}

func TestProxy(t *testing.T) {
	t.Parallel()
	corporate := map[string]string{"HTTPS_PROXY": "http://corp:3128"}
	for _, c := range []struct {
		app  string
		env  map[string]string
		want string
	}{
		{"", nil, ""},
		{", proxy: 'http://proxy:3128'", nil, "http://proxy:3128"},
		{", proxy: 'https://me:pw@proxy'", nil, "https://me:pw@proxy"},
		{", proxy: '${P}'", map[string]string{"P": "http://me:a%40b@proxy:1"}, "http://me:a%40b@proxy:1"},
		{", proxy: none", corporate, ""},
		{", proxy: 'http://proxy:3128'", corporate, "http://proxy:3128"},
		{", proxy: 'http://proxy:3128', server: 'https://127.0.0.1:8443'", nil, "http://proxy:3128"}, // who names one gets it
		{", proxy: 'http://proxy:3128', server: mock", nil, ""},

		{"", corporate, "http://corp:3128"},
		{", server: sandbox", corporate, "http://corp:3128"},
		{", server: 'https://api.push.apple.com:2197'", corporate, "http://corp:3128"},
		{"", map[string]string{"https_proxy": "corp:3128"}, "http://corp:3128"},
		{"", map[string]string{"HTTPS_PROXY": "http://a", "https_proxy": "http://b"}, "http://a"},
		{"", map[string]string{"HTTPS_PROXY": ""}, ""},
		{"", map[string]string{"HTTP_PROXY": "http://a", "ALL_PROXY": "http://a"}, ""},
		{"", map[string]string{"HTTPS_PROXY": "http://a", "NO_PROXY": ".apple.com"}, ""},
		{"", map[string]string{"HTTPS_PROXY": "http://a", "no_proxy": "api.push.apple.com:443"}, ""},
		{"", map[string]string{"HTTPS_PROXY": "http://a", "NO_PROXY": "example.com"}, "http://a"},
		{"", map[string]string{"HTTPS_PROXY": "http://a", "NO_PROXY": "*"}, ""},
		{", server: 'https://127.0.0.1:8443'", corporate, ""},
		{", server: 'https://localhost:8443'", corporate, ""},
		{", server: 'https://[::1]:8443'", corporate, ""},
		{", server: mock", corporate, ""},
		// Not for this app, so its fault is not ours.
		{", server: mock", map[string]string{"HTTPS_PROXY": "socks5://a"}, ""},
		{", proxy: none", map[string]string{"HTTPS_PROXY": "socks5://a"}, ""},
	} {
		if got := proxyOf(t, c.app, c.env); got != c.want {
			t.Errorf("%s with %v: %q, want %q", c.app, c.env, got, c.want)
		}
	}
}

func TestProxyDefaultsAndFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "proxy", []byte("http://me:"+hidden+"@proxy:3128\n"))
	write(t, dir, "a.pem", pemFor(t, "a", true))
	for text, want := range map[string][2]string{
		"defaults: {proxy: 'http://d'}\napps: [{topic: a, cert: a.pem}, {topic: b, server: mock}]":                    {"http://d", ""},
		"defaults: {proxy: 'http://d'}\napps: [{topic: a, cert: a.pem, proxy: none}, {topic: b, server: mock}]":       {"", ""},
		"defaults: {proxy: 'http://d'}\napps: [{topic: a, cert: a.pem, proxy_file: proxy}, {topic: b, server: mock}]": {"http://me:" + hidden + "@proxy:3128", ""},
		"defaults: {proxy_file: proxy}\napps: [{topic: a, cert: a.pem, proxy: 'http://a'}, {topic: b, server: mock}]": {"http://a", ""},
	} {
		cfg := mustParse(t, text, Options{Dir: dir, Getenv: env(nil)})
		for i := range cfg.Apps {
			got := ""
			if u := cfg.Apps[i].Proxy.URL(); u != nil {
				got = u.String()
			}
			if got != want[i] {
				t.Errorf("%s:\napp %d has %q, want %q", text, i, got, want[i])
			}
		}
	}
}

func TestProxyFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "app.pem", pemFor(t, "com.example.app", true))
	write(t, dir, "empty", nil)
	secret := "me:" + hidden + "@"
	for _, c := range []struct {
		key  string
		env  map[string]string
		want string
	}{
		{"proxy: socks5://" + secret + "proxy:1080", nil, "test.yaml:4: apps[0].proxy: want http://host:port or https://host:port; other kinds of proxies are not supported; or none, for no proxy"},
		{"proxy: " + secret + "proxy:3128", nil, "apps[0].proxy: want http://host:port"},
		{"proxy: proxy:3128", nil, "apps[0].proxy: want http://host:port"},
		{"proxy: http://" + secret + "proxy:99999", nil, "the port is not between 1 and 65535"},
		{"proxy: http://" + secret + "proxy/pac", nil, "with nothing after it"},
		{"proxy: http://me:" + hidden + "/x@proxy", nil, "apps[0].proxy: is not a URL"},
		{"proxy: http://me:" + hidden + "%zz@proxy", nil, "apps[0].proxy: is not a URL"},
		{"proxy: http://" + secret, nil, "the host is missing"},
		{"proxy: http://a%3Ab:" + hidden + "@proxy", nil, "colon"},
		{"proxy: ''", nil, "is empty"},
		{"proxy:", nil, "has no value"},
		{"proxy: [http://a]", nil, "must be a single value"},
		{"proxy: ${UNSET}", nil, "environment variable UNSET is not set"},
		{"proxy: ${P}", map[string]string{"P": "http://" + secret + ":1"}, "the host is missing"},
		{"proxy_file: missing", nil, `apps[0].proxy_file "missing": no such file`},
		{"proxy_file: empty", nil, `apps[0].proxy_file "empty": is empty`},
		{"proxy: http://a\n    proxy_file: empty", nil, `apps[0].proxy_file "empty": given together with proxy: remove one of the two`},
		{"workers: 1", map[string]string{"HTTPS_PROXY": "socks5://" + secret + "a"}, "test.yaml:2: apps[0].proxy: the environment variable HTTPS_PROXY is wrong: want http://host:port or https://host:port; other kinds of proxies are not supported; correct it, or set proxy: none"},
		{"workers: 1", map[string]string{"https_proxy": "http://" + secret + "a b"}, "the environment variable https_proxy is wrong: is not a URL"},
	} {
		text := "apps:\n  - topic: com.example.app\n    cert: app.pem\n    " + c.key + "\n"
		_, err := Parse("test.yaml", []byte(text), Options{Dir: dir, Getenv: env(c.env)})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s with %v:\n%v, want %q", c.key, c.env, err, c.want)
		}
		if err != nil && hiddenIn(err.Error()) {
			t.Errorf("%s: the fault tells the password: %v", c.key, err)
		}
	}
}

// A changed proxy is a changed app, its password included.
func TestProxyInSame(t *testing.T) {
	t.Parallel()
	with := func(proxy string) *App {
		a := Default().Apps[0]
		if err := setProxy(&a.Proxy, proxy); err != nil {
			t.Fatal(err)
		}
		return &a
	}
	all := []string{"none", "http://a", "http://b", "https://a", "http://a:81", "http://me@a", "http://me:1@a", "http://me:2@a"}
	for _, x := range all {
		for _, y := range all {
			if got := with(x).Same(with(y)); got != (x == y) {
				t.Errorf("%s and %s: same is %v", x, y, got)
			}
		}
	}
}
