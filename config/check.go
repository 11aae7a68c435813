package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"gopkg.in/yaml.v3"

	"propeller/apnsconn"
	"propeller/internal/files"
	"propeller/internal/keysize"
	"propeller/internal/neterr"
	"propeller/internal/pemfile"
	"propeller/queue/queueurl"
)

// draft is an app on its way: its values, and where they came from.
type draft struct {
	App
	layer layer
	bad   map[string]bool // keys given with a fault: nothing builds on them
	path  string          // "apps[1]"; flagPath for flags
	line  int             // where the app starts
}

// draft sets the fields that l gives over the built-in defaults.
func (p *parser) draft(l layer, path string, line int) *draft {
	d := &draft{App: p.blank, layer: l, path: path, line: line}
	before := len(p.credential)
	d.bad = p.assign(l, appFields, &d.App)
	d.Faults = slices.Clone(p.credential[before:])
	return d
}

// has reports whether key was given, rightly or not.
func (d *draft) has(key string) bool {
	_, ok := d.layer[key]
	return ok
}

// at returns where key was given, or would be.
func (d *draft) at(key string) entry {
	if e, ok := d.layer[key]; ok {
		return e
	}
	if d.path == flagPath {
		return entry{key: flagPath + flagName(key), flag: true, cred: credentialOf(key) != ""}
	}
	return entry{key: join(d.path, key), line: d.line, cred: credentialOf(key) != ""}
}

// name is how key is written: in the file, or as a flag.
func (d *draft) name(key string) string {
	if d.path == flagPath {
		return flagPath + flagName(key)
	}
	return key
}

// finish checks what concerns several keys or several apps, loads the
// credentials, and returns the apps.
func (p *parser) finish(drafts []*draft, cfg *Config) []App {
	p.checkNames(drafts)
	for _, d := range drafts {
		p.checkRetry(d)
		p.checkServer(d)
		if !p.WithoutCredentials {
			p.checkProxy(d)
			p.loadRoots(d)
			p.checkFeedback(d)
		}
		d.ByCertificate = d.has("cert") && !d.has("key")
		d.warnOfTimes(cfg)
		if !p.WithoutCredentials {
			p.credentialOf(d)
		}
	}
	p.checkFeedbackTubes(drafts)
	apps := make([]App, len(drafts))
	for i, d := range drafts {
		apps[i] = d.App
	}
	return apps
}

// warnOfTimes compares push_timeout with the times of the whole daemon.
func (d *draft) warnOfTimes(cfg *Config) {
	if d.PushTimeout > cfg.ShutdownTimeout {
		d.Warnings = append(d.Warnings, fmt.Sprintf(
			"push_timeout %s is longer than shutdown_timeout %s: at shutdown a push that is still unanswered is cut off, and sent again later",
			short(d.PushTimeout), short(cfg.ShutdownTimeout)))
	}
	if d.PushTimeout > cfg.Watchdog {
		d.Warnings = append(d.Warnings, fmt.Sprintf(
			"watchdog %[1]s is shorter than push_timeout %[2]s: for this app the watchdog waits %[2]s",
			short(cfg.Watchdog), short(d.PushTimeout)))
	}
}

// checkRetry compares the three times with each other.
func (p *parser) checkRetry(d *draft) {
	if d.bad["retry.min"] || d.bad["retry.max"] || d.bad["retry.give_up_after"] {
		return
	}
	// The fault is put on a key that was given; a default cannot be wrong.
	on := func(key, other string) entry {
		if !d.has(key) && d.has(other) {
			return d.at(other)
		}
		return d.at(key)
	}
	r := d.Retry
	if r.Min > r.Max {
		p.wrong(on("retry.max", "retry.min"), fmt.Errorf("retry.min %s is more than retry.max %s", short(r.Min), short(r.Max)))
	}
	if r.GiveUpAfter < r.Min {
		p.wrong(on("retry.give_up_after", "retry.min"), fmt.Errorf(
			"retry.give_up_after %s is less than retry.min %s: nothing would be tried again", short(r.GiveUpAfter), short(r.Min)))
	}
}

// checkServer finds out where APNs is.
func (p *parser) checkServer(d *draft) {
	if d.bad["server"] || d.Mock() {
		return
	}
	addr, env, err := apnsconn.ServerAddr(d.Server)
	if err != nil {
		// Its text quotes the value, which may hold what a variable expands to.
		p.wrong(d.at("server"), neterr.Reworded("must be production, sandbox, mock or https://host:port", err))
		d.bad["server"] = true
		return
	}
	d.Addr, d.Env = addr, env
}

// proxyNone is the value of proxy that switches the environment's off.
const proxyNone = "none"

// setProxy sets the proxy that a key gives; the text is never quoted.
func setProxy(at *SecretURL, text string) error {
	switch text {
	case "":
		return errEmpty
	case proxyNone:
		*at = SecretURL{}
		return nil
	}
	u, err := apnsconn.ParseProxy(text)
	if err != nil {
		return neterr.Reworded(proxyFault(err)+"; or none, for no proxy", err)
	}
	*at = newSecretURL(u)
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
	d.Proxy = newSecretURL(u)
}

// environment returns the first of the variables that is not empty.
func (p *parser) environment(upper, lower string) (name, value string) {
	u, _ := p.Getenv(upper)
	l, _ := p.Getenv(lower)
	if u == "" && l != "" {
		name = lower
	}
	return cmp.Or(name, upper), cmp.Or(u, l)
}

// ParseQueue reads the URL of a queue, or those of several beanstalkd servers
// separated by commas, as the flag --queue has it. Of the options only Dir
// matters: relative paths start there. The error is a Faults that tells no
// password.
func ParseQueue(text string, o Options) (queueurl.URL, error) {
	p := newParser("", o)
	u := p.queueFlag(text)
	if len(p.faults) > 0 {
		return queueurl.URL{}, p.faults.sorted()
	}
	return u, nil
}

// queueFlag reads the value of --queue.
func (p *parser) queueFlag(text string) queueurl.URL {
	var entries []entry
	for _, part := range queueurl.Split(text) {
		entries = append(entries, entry{text: part, key: flagPath + "queue", flag: true})
	}
	return p.queue(entries)
}

// queueNode reads the URL, or the list of URLs, of queue.
func (p *parser) queueNode(kv pair) queueurl.URL {
	switch kv.val.Kind {
	case yaml.MappingNode:
		p.at(kv.val.Line, kv.path, "must be a URL or a list of URLs, not a mapping")
		return queueurl.URL{}
	case yaml.SequenceNode:
		return p.queue(p.list(kv))
	}
	if e, ok := p.scalar(kv.val, kv.path); ok {
		return p.queue([]entry{e})
	}
	return queueurl.URL{}
}

// queue is the queue that all entries are of.
func (p *parser) queue(entries []entry) (all queueurl.URL) {
	for _, e := range entries {
		text, ok := p.text(e)
		if !ok || p.full() {
			continue
		}
		e.secret = queueurl.MayHoldSecret(text) // one without its "@host" would pass for host:port
		u, err := queueurl.Parse(text, queueurl.Files{Dir: p.Dir, Read: p.optionFile})
		if ca := u.Options["ca"]; err == nil && ca != "" {
			if _, fault := addRoots(x509.NewCertPool(), ca); fault != nil {
				err = neterr.Reworded("ca: "+fault.Error(), fault)
			}
		}
		if err == nil && u.Dir != "" {
			err = files.Folder(u.Dir)
		}
		if err == nil {
			p.noteSecrets(e, text, u)
			err = all.Add(u)
		}
		if err != nil {
			p.wrong(e, err)
		}
	}
	return all
}

// noteSecrets notes which files hold the secrets of a queue's URL.
func (p *parser) noteSecrets(e entry, text string, u queueurl.URL) {
	if !e.flag && text == e.text && (u.Password != "" || u.Token != "") {
		p.secretFiles = append(p.secretFiles, p.file)
	}
	for _, option := range []string{"creds", "nkey", "key"} {
		p.secretFiles = append(p.secretFiles, u.Options[option])
	}
}

// optionFile reads a file that a queue's URL names.
func (p *parser) optionFile(text, path string) ([]byte, error) {
	data, err := readFile(path, maxFile)
	return data, p.hint(text, err)
}

// addRoots adds the certificates of a file to a pool.
func addRoots(pool *x509.CertPool, path string) (data []byte, err error) {
	if data, err = readFile(path, maxFile); err != nil {
		return nil, err
	}
	if err := keysize.Roots(pool, data); err != nil {
		return nil, neterr.Reworded(pemfile.InFile(err.Error(), path), err)
	}
	return data, nil
}

// stateVariable is what systemd sets to the folders of StateDirectory=, joined
// by colons (systemd.exec(5)).
const stateVariable = "STATE_DIRECTORY"

// global sets the fields at the top that l gives, and returns the keys that
// could not be set.
func (p *parser) global(l layer, cfg *Config) (bad map[string]bool) {
	bad = p.assign(l, configFields, cfg)
	e, given := l["state_dir"]
	if !given {
		dirs, _ := p.Getenv(stateVariable)
		if dir, _, _ := strings.Cut(dirs, ":"); filepath.IsAbs(dir) {
			cfg.StateDir = dir
		} else {
			// Commands reach a queue inside a daemon by the socket only.
			cfg.StateDir = cfg.Queue.Dir
		}
		return bad
	}
	// One that is not there yet is made when it is needed.
	if err := files.Folder(cfg.StateDir); err != nil {
		p.wrong(e, err)
	}
	return bad
}

// maxNamed bounds the files that a warning names.
const maxNamed = 3

// warnOfRights finds files with secrets that every user of the machine can read.
func (p *parser) warnOfRights(cfg *Config) {
	if p.WithoutCredentials {
		return
	}
	secret := append([]string{cfg.HTTP.TLSKey}, p.secretFiles...)
	for i := range cfg.Apps {
		a := &cfg.Apps[i]
		if a.CertKey != "" {
			secret = append(secret, a.CertKey)
		} else {
			secret = append(secret, a.Cert)
		}
		secret = append(secret, a.Key)
	}
	var open []string
	seen := map[string]bool{"": true}
	for _, path := range secret {
		if !seen[path] && files.ReadableByAll(path) {
			open = append(open, fmt.Sprintf("%.200q", path))
		}
		seen[path] = true
	}
	if len(open) == 0 {
		return
	}
	named := strings.Join(open[:min(len(open), maxNamed)], ", ")
	if more := len(open) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	cfg.Warnings = append(cfg.Warnings, "every user of this machine can read files that hold secrets: "+named+": remove that right: chmod o-r FILE")
}
