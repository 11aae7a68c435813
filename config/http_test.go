package config

import (
	"strings"
	"testing"
)

const httpApp = "\napps: [{topic: a, server: mock}, {topic: b, server: mock}, {name: lane, topic: b, server: mock}, {name: one, topic: d, server: mock}]"

// What is wrong with http is said with its key, and no token.
func TestHTTPFaults(t *testing.T) {
	t.Parallel()
	const key = "keys: [{name: n, token: hunter2hunter2, role: send}]"
	dir := t.TempDir()
	write(t, dir, "x.pem", []byte("nothing"))
	for text, want := range map[string]string{
		"{listen: 8080}":                                         `http.listen "8080": must be host:port`,
		"{listen: 'localhost:http'}":                             "the port must be a number",
		"{listen: '127.0.0.1:65536'}":                            "the port must be a number",
		"{listen: 'unix:'}":                                      "has no path",
		"{listen: 'unix:/" + strings.Repeat("x", 103) + "'}":     "104 bytes",
		"{listen: '0.0.0.0:80'}":                                 "other machines could send pushes",
		"{listen: ':80'}":                                        "other machines could send pushes",
		"{listen: 'host.example:80'}":                            "other machines could send pushes",
		"{auth_token: hunter2hunter2}":                           "does nothing without http.listen",
		"{" + key + "}":                                          "does nothing without listen",
		"{pprof: true}":                                          "does nothing without http.listen",
		"{listen: 'localhost:0', auth_token: hunter2}":           "http.auth_token: must have from 8",
		"{listen: 'localhost:0', auth_token: 'hunter2 hunter2'}": "without blanks",
		"{listen: 'localhost:0', auth_token: hunter2hunter2, " + key + "}":                                                            "http.keys[0].token: the same token as http.auth_token",
		"{listen: 'localhost:0', keys: {name: n}}":                                                                                    "must be a list",
		"{listen: 'localhost:0', keys: [{token: hunter2hunter2, role: send}]}":                                                        "http.keys[0].name: is missing",
		"{listen: 'localhost:0', keys: [{name: n, role: send}]}":                                                                      "http.keys[0].token: is missing",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2}]}":                                                           "http.keys[0].role: is missing",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: root}]}":                                               "must be read, send or admin",
		"{listen: 'localhost:0', keys: [{name: auth_token, token: hunter2hunter2, role: send}]}":                                      "http.keys[0].name",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, topics: [c]}]}":                                  `no app has the topic "c"`,
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, apps: [c]}]}":                                    `no app has the name "c"`,
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, apps: [d]}]}":                                    `http.keys[0].apps: "d" is no app's name but a topic`,
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, apps: []}]}":                                     "is an empty list",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, apps: [lane], topics: [b]}]}":                    "http.keys[0].topics: given together with apps",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, topics: []}]}":                                   "is an empty list",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, rate: 0}]}":                                      "http.keys[0].rate",
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send, topic: a}]}":                                     `did you mean "topics"`,
		"{listen: 'localhost:0', keys: [{name: n, token: hunter2hunter2, role: send}, {name: n, token: hunter2hunter3, role: send}]}": "the same name as http.keys[0]",
		"{listen: 'localhost:0', tls_cert: x.pem}":                                                                                    "needs http.tls_key",
		"{listen: 'localhost:0', tls_key: x.pem}":                                                                                     "needs http.tls_cert",
		"{listen: 'localhost:0', tls_cert: y.pem, tls_key: x.pem}":                                                                    "no such file",
		"{listen: 'localhost:0', tls_cert: x.pem, tls_key: x.pem}":                                                                    "is not usable with http.tls_key",
		"{listen: 'localhost:0', base_path: x}":                                                                                       "must be a path such as",
		"{listen: 'localhost:0', base_path: /x/}":                                                                                     "must be a path such as",
		"{listen: 'localhost:0', base_path: /x/../y}":                                                                                 "must be a path such as",
		"{listen: 'localhost:0', pprof: yes}":                                                                                         "must be true or false",
		"{listen: 'localhost:0', trusted_proxies: [10.0.0.0/33]}":                                                                     "must be an IP address",
		"{listen: 'localhost:0', trusted_proxies: ['::ffff:10.0.0.0/95']}":                                                            "must be an IP address",
		"{listen: 'localhost:0', hsts: true}":                                                                                         "does nothing without TLS",
		"{listen: 'localhost:0', hsts: 1}":                                                                                            "must be true or false",
		"{listen: 'localhost:0', trusted_proxies: 10.0.0.1}":                                                                          "must be a list",
		"{listen: 'localhost:0', port: 1}":                                                                                            "unknown key",
	} {
		_, err := Parse("test.yaml", []byte("http: "+text+httpApp), Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s:\n%v\nwant %s", text, err, want)
		}
	}
}

// What is right; and what deserves a warning.
func TestHTTPListens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "t", []byte("0123456789\n"))
	for text, warned := range map[string]bool{
		"{listen: '127.0.0.1:8080'}": false,
		"{listen: '[::1]:0'}":        false,
		"{listen: 'localhost:0', keys: [{name: n, token_file: t, role: send, topics: [a, b]}]}": false,
		"{listen: 'unix:/run/x.sock'}":                                                  false,
		"{listen: 'unix:/run/x.sock', hsts: true}":                                      false,
		"{listen: ':80', auth_token_file: t, trusted_proxies: [127.0.0.1], hsts: true}": false,
		"{listen: ':80', auth_token_file: t}":                                           true,
		"{listen: ':80', auth_token_file: t, trusted_proxies: [127.0.0.1]}":             false,
	} {
		cfg := mustParse(t, "http: "+text+httpApp, Options{Dir: dir})
		if (len(cfg.Warnings) > 0) != warned {
			t.Errorf("%s: %q", text, cfg.Warnings)
		}
		mustParse(t, "http: "+text+httpApp, Options{Dir: "/nowhere", WithoutCredentials: true})
	}
}

func TestHTTPFlags(t *testing.T) {
	t.Parallel()
	flags := map[string]string{"topic": "a", "server": "mock", "http-listen": "127.0.0.1:0"}
	cfg, err := Single(flags, Options{})
	if err != nil || cfg.HTTP.Listen != "127.0.0.1:0" {
		t.Errorf("%+v, %v", cfg, err)
	}
	flags["http-listen"] = "0.0.0.0:0"
	if _, err := Single(flags, Options{}); err == nil || !strings.Contains(err.Error(), `--http-listen "0.0.0.0:0": other machines could send pushes: listen on 127.0.0.1 or unix:PATH, or use a file (-c) with http.listen and http.auth_token`) {
		t.Errorf("%v", err)
	}
}

// A trusted proxy's network matches what clients' addresses are, and one of half the
// world is warned of.
func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct {
		want   string
		warned bool
	}{
		"10.1.2.3":              {"10.1.2.3/32", false},
		"10.1.2.3/8":            {"10.0.0.0/8", false},
		"'::ffff:10.1.2.3'":     {"10.1.2.3/32", false},
		"'::ffff:10.0.0.0/104'": {"10.0.0.0/8", false},
		"'::ffff:a00:0/104'":    {"10.0.0.0/8", false},
		"'fc00::/7'":            {"fc00::/7", false},
		"0.0.0.0/0":             {"0.0.0.0/0", true},
		"128.0.0.0/1":           {"128.0.0.0/1", true},
		"'::/0'":                {"::/0", true},
		"'::ffff:0.0.0.0/96'":   {"0.0.0.0/0", true},
		"'2000::/3'":            {"2000::/3", true},
	} {
		cfg := mustParse(t, "http: {listen: 'localhost:0', trusted_proxies: ["+text+"]}"+httpApp, Options{})
		if got := cfg.HTTP.TrustedProxies; len(got) != 1 || got[0].String() != c.want || len(cfg.Warnings) > 0 != c.warned {
			t.Errorf("%s: %v, %q", text, got, cfg.Warnings)
		}
	}
}
