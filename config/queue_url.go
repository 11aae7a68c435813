package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// The URLs of queues. Config.Queue holds them in one form, so that equal queues
// have equal URLs: paths absolute, ports filled in, options sorted.
//
//	beanstalk://host[:port]                                   a beanstalkd server; port 11300
//	embedded:///folder  embedded://./folder                   a queue inside this process, in a folder;
//	                                                          a relative one starts at the file's folder
//	    ?fsync=always                                         write each job to disk before it counts as put
//	    ?listen=127.0.0.1:4222                                serve NATS clients on this machine, too
//	nats://[user[:password]@]host[:port][,host[:port]…]       a NATS cluster with JetStream; port 4222;
//	                                                          a user without a password is a token
//	tls://…                                                   the same, over TLS from the start
//	    ?creds=file                                           credentials file, instead of user and password
//	    ?ca=file                                              .pem of roots instead of the system's
//	    ?replicas=3                                           copies of each job: 1, 3 or 5
//
// Only the form is checked here, and that files can be read. What the adapter in
// queue/ makes of it is the adapter's matter.
const (
	beanstalkScheme = "beanstalk"
	embeddedScheme  = "embedded"
	natsScheme      = "nats"
	tlsScheme       = "tls"

	beanstalkPort = "11300" // beanstalkd's own default
	natsPort      = "4222"  // nats-server's own default
)

// How to write them, for faults.
const (
	writeBeanstalk = "write beanstalk://host:port"
	writeEmbedded  = "write embedded:///folder, or embedded://./folder for a relative one"
	writeNATS      = "write nats://user:password@a:4222,b:4222, and in user and password every character but letters and digits as %XX"
)

// queueURL checks the URL of a queue and brings it into its one form. Errors do
// not quote the text, which may hold a password.
func (p *parser) queueURL(text string) (string, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	switch scheme = strings.ToLower(scheme); {
	case ok && scheme == beanstalkScheme:
		return beanstalkURL(text)
	case ok && scheme == embeddedScheme:
		return p.embeddedURL(rest)
	case ok && isNATS(text):
		return p.natsURL(scheme, rest)
	}
	return "", errors.New("must start with beanstalk://, embedded://, nats:// or tls://, like beanstalk://127.0.0.1:11300")
}

func beanstalkURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("is not a URL: " + writeBeanstalk)
	}
	host, port := u.Hostname(), u.Port()
	switch {
	case u.User != nil:
		return "", errors.New("beanstalkd knows no user or password: " + writeBeanstalk)
	case host == "":
		return "", errors.New("has no host: " + writeBeanstalk)
	case !oneHost(host):
		return "", errors.New("has more than one host and port: several servers are a list, [beanstalk://a, beanstalk://b]")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", errors.New("has something behind the port: " + writeBeanstalk)
	case port != "" && !validPort(port):
		return "", errPort
	case port == "":
		port = beanstalkPort
	}
	return (&url.URL{Scheme: beanstalkScheme, Host: net.JoinHostPort(host, port)}).String(), nil
}

// oneHost reports whether host is a single name or IP address. What of "a:1:1"
// or "a,b" passes for a host is a matter of net/url's version.
func oneHost(host string) bool {
	addr, _, _ := strings.Cut(host, "%") // an IPv6 zone
	return !strings.ContainsAny(host, ", ") && (!strings.Contains(host, ":") || net.ParseIP(addr) != nil)
}

var errPort = errors.New("the port must be from 1 to 65535")

func (p *parser) embeddedURL(rest string) (string, error) {
	text, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return "", errors.New("lacks // behind the scheme: " + writeEmbedded)
	}
	folder, rawQuery, _ := strings.Cut(text, "?")
	if strings.Contains(text, "#") {
		return "", errors.New("has a #, which is written as %23 in a URL")
	}
	folder, err := url.PathUnescape(folder)
	if err != nil {
		return "", errors.New("has a % without two hexadecimal digits: write % as %25")
	}
	switch first, _, _ := strings.Cut(folder, "/"); {
	case folder == "":
		return "", errors.New("has no folder: " + writeEmbedded)
	case first != "" && first != "." && first != "..":
		return "", errors.New("has no / or ./ in front of its folder: " + writeEmbedded)
	case strings.ContainsFunc(folder, unicode.IsControl):
		return "", errors.New("has a control character in its folder")
	}
	if folder, err = filepath.Abs(p.path(folder)); err != nil {
		return "", errCause{"is relative to a folder that cannot be found out", err}
	}
	if folder == filepath.Dir(folder) {
		return "", errors.New("is the root folder: the queue needs a folder of its own")
	}
	query, err := p.queueOptions(rawQuery, embeddedOptions)
	if err != nil {
		return "", err
	}
	return (&url.URL{Scheme: embeddedScheme, Path: folder}).String() + query, nil
}

// natsURL is taken apart by hand: that its host part holds several servers is
// NATS' custom, and no longer a URL to net/url.
func (p *parser) natsURL(scheme, rest string) (string, error) {
	text, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return "", errors.New("lacks // behind the scheme: " + writeNATS)
	}
	authority, rawQuery, _ := strings.Cut(text, "?")
	authority = strings.TrimSuffix(authority, "/")
	if strings.ContainsAny(authority, "/#") || strings.Contains(rawQuery, "#") {
		return "", errors.New("has a / or # that does not belong there: " + writeNATS)
	}
	user, servers := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		u, err := url.Parse(scheme + "://" + authority[:at+1] + "host")
		// Several servers with a user each would pass for one with a long password.
		if err != nil || u.User.Username() == "" || strings.ContainsAny(authority[:at], "@,") {
			return "", errors.New("has no valid user and password: " + writeNATS)
		}
		user, servers = userInfo(u.User)+"@", authority[at+1:]
	}
	list, err := natsServers(servers)
	if err != nil {
		return "", err
	}
	query, err := p.queueOptions(rawQuery, natsOptions)
	if err != nil {
		return "", err
	}
	if user != "" && strings.Contains(query, "creds=") {
		return "", errors.New("has a user and creds: give one of them")
	}
	return scheme + "://" + user + list + query, nil
}

// userInfo is user and password with everything escaped that could be taken
// for something else: net/url leaves the commas, which stand between servers.
func userInfo(u *url.Userinfo) string {
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	text := escape(u.Username())
	if password, ok := u.Password(); ok {
		text += ":" + escape(password)
	}
	return text
}

// natsServers checks a list of host[:port] and fills in the ports.
func natsServers(text string) (string, error) {
	servers := strings.Split(text, ",")
	if len(servers) > maxQueues {
		return "", fmt.Errorf("has more than %d servers: some are enough to find all of the cluster", maxQueues)
	}
	for i, server := range servers {
		u, err := url.Parse(natsScheme + "://" + strings.TrimSpace(server))
		if err != nil {
			return "", errors.New("has a server that is not host:port: " + writeNATS)
		}
		host, port := u.Hostname(), u.Port()
		switch {
		case host == "":
			return "", errors.New("has a server without a host: " + writeNATS)
		case !oneHost(host) || strings.Contains(host, "%"): // IPv6 zones are not for clusters
			return "", errors.New("has a server that is not host:port: " + writeNATS)
		case port != "" && !validPort(port):
			return "", errPort
		case port == "":
			port = natsPort
		}
		servers[i] = net.JoinHostPort(host, port)
		if slices.Contains(servers[:i], servers[i]) {
			return "", errors.New("names a server twice: remove one")
		}
	}
	return strings.Join(servers, ","), nil
}

// isNATS reports whether text is the URL of a NATS cluster, or meant to be one.
func isNATS(text string) bool {
	scheme, _, _ := strings.Cut(strings.ToLower(text), ":")
	return scheme == natsScheme || scheme == tlsScheme
}

// redactQueue masks user and password of a queue's URL.
func redactQueue(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme == embeddedScheme {
		return text
	}
	// In the one form there is no other @: options have it as %40.
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = redacted + rest[at:]
	}
	return scheme + "://" + rest
}
