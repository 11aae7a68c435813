package queueurl

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/nats-io/nkeys"

	"propeller/internal/keysize"
)

// scheme is how the URLs of one kind of queue are written.
type scheme struct {
	name    string
	port    string // of a server that names none; "": a folder stands in place of servers
	cluster bool   // one URL has all servers, and may have a user; else several URLs make a list
	write   string // how to write it, for faults
	options []option
}

const writeNATS = "write nats://user:password@a:4222,b:4222, and in user and password every character but letters and digits as %XX"

// schemes are all that there are; cmd/propeller has the adapter of each. Never written to.
var schemes = []scheme{
	{name: "beanstalk", port: "11300", write: "write beanstalk://host:port"},
	{name: "embedded", write: "write embedded:///folder, or embedded://./folder for a relative one", options: embeddedOptions},
	{name: "nats", port: "4222", cluster: true, write: writeNATS, options: natsOptions},
	{name: "tls", port: "4222", cluster: true, write: writeNATS, options: natsOptions},
}

// find returns the zero scheme for a name of none.
func find(name string) scheme {
	for _, s := range schemes {
		if s.name == name {
			return s
		}
	}
	return scheme{}
}

// Files are the files that a URL names.
type Files struct {
	Dir string // where relative paths start; "": the working folder
	// Read reads the file at a path, which the URL has as text. nil: none is looked at.
	Read func(text, path string) ([]byte, error)
}

// Parse reads a URL. Errors do not quote it: it may hold a password. They go on after
// the URL's name: "queue: has no host".
func Parse(text string, files Files) (URL, error) {
	name, rest, colon := strings.Cut(text, ":")
	s := find(strings.ToLower(name))
	if !colon || s.name == "" {
		return URL{}, errors.New("must start with beanstalk://, embedded://, nats:// or tls://, like beanstalk://127.0.0.1:11300")
	}
	rest, slashes := strings.CutPrefix(rest, "//")
	if !slashes {
		return URL{}, errors.New("lacks // behind the scheme: " + s.write)
	}
	if strings.Contains(rest, "#") {
		return URL{}, errors.New("has a #, which is written as %23 in a URL: " + s.write)
	}
	u := URL{Scheme: s.name}
	where, query, asked := strings.Cut(rest, "?")
	if asked && s.options == nil {
		return URL{}, errors.New("has something behind the port: " + s.write)
	}
	var err error
	if s.port == "" {
		u.Dir, err = folder(where, s, files)
	} else {
		err = u.authority(where, s)
	}
	if err == nil {
		err = u.setOptions(query, s.options, files)
	}
	if err != nil {
		return URL{}, err
	}
	return u, nil
}

// abs is a path that can be opened from everywhere.
func (f Files) abs(text string) (string, error) {
	if !filepath.IsAbs(text) {
		text = filepath.Join(f.Dir, text)
	}
	path, err := filepath.Abs(text)
	if err != nil {
		return "", fmt.Errorf("is relative to a folder that cannot be found out: %w", err)
	}
	return path, nil
}

func folder(text string, s scheme, files Files) (string, error) {
	dir, err := url.PathUnescape(text)
	if err != nil {
		return "", errors.New("has a % without two hexadecimal digits: write % as %25")
	}
	switch first, _, _ := strings.Cut(dir, "/"); {
	case dir == "":
		return "", errors.New("has no folder: " + s.write)
	case first != "" && first != "." && first != "..":
		return "", errors.New("has no / or ./ in front of its folder: " + s.write)
	case strings.ContainsFunc(dir, unicode.IsControl):
		return "", errors.New("has a control character in its folder")
	}
	if dir, err = files.abs(dir); err != nil {
		return "", err
	}
	if dir == filepath.Dir(dir) {
		return "", errors.New("is the root folder: the queue needs a folder of its own")
	}
	return dir, nil
}

// authority reads who and where. It is taken apart by hand: that the host part holds
// several servers is NATS' custom, and no longer a URL to net/url.
func (u *URL) authority(text string, s scheme) error {
	text = strings.TrimSuffix(text, "/")
	at := strings.LastIndexByte(text, '@')
	switch {
	case at >= 0 && !s.cluster:
		return errors.New("has a user or password, which " + s.name + " does not know: " + s.write)
	case strings.Contains(text, "/"):
		return errors.New("has a / that does not belong there: " + s.write)
	case at >= 0:
		// Several servers with a user each would pass for one with a long password.
		info, err := url.Parse(s.name + "://" + text[:at+1] + "host")
		if err != nil || info.User.Username() == "" || strings.ContainsAny(text[:at], "@,") {
			return errors.New("has no valid user and password: " + s.write)
		}
		u.User = info.User.Username()
		var both bool
		if u.Password, both = info.User.Password(); !both {
			u.User, u.Token = "", u.User
		}
	}
	servers := strings.Split(text[at+1:], ",")
	switch {
	case len(servers) > 1 && !s.cluster:
		return errors.New("has more than one host and port: several servers are a list, [beanstalk://a, beanstalk://b]")
	case len(servers) > maxServers:
		return fmt.Errorf("has more than %d servers: some are enough to find all of the cluster", maxServers)
	}
	for _, server := range servers {
		addr, err := address(strings.TrimSpace(server), s)
		if err != nil {
			return err
		}
		if slices.Contains(u.Servers, addr) {
			return errors.New("names a server twice: remove one")
		}
		u.Servers = append(u.Servers, addr)
	}
	return nil
}

var errPort = errors.New("the port must be from 1 to 65535")

// address checks a host[:port] and fills in the port.
func address(text string, s scheme) (string, error) {
	u, err := url.Parse(s.name + "://" + text)
	if err != nil {
		return "", errors.New("has a server that is not host:port: " + s.write)
	}
	host, port := u.Hostname(), u.Port()
	addr, zone, _ := strings.Cut(host, "%")
	// What of "a:1:1" passes for a host is a matter of net/url's version. IPv6 zones
	// are not for clusters.
	switch {
	case host == "":
		return "", errors.New("has a server without a host: " + s.write)
	case strings.Contains(host, " "), strings.Contains(host, ":") && net.ParseIP(addr) == nil, zone != "" && (s.cluster || net.ParseIP(addr) == nil):
		return "", errors.New("has a server that is not host:port: " + s.write)
	case port == "":
		port = s.port
	case !validPort(port):
		return "", errPort
	}
	return net.JoinHostPort(host, port), nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// option is one setting behind the "?" of a URL.
type option struct {
	key string
	// value brings the value into its one form; nil: it names a file.
	value func(text string) (string, error)
}

// Never written to.
var (
	embeddedOptions = []option{
		{"fsync", only("always", "without it the disk is written once a second")},
		{"listen", listen}, // where NATS clients of this machine are served
	}
	natsOptions = []option{
		{"ca", nil},    // .pem of roots instead of the system's
		{"cert", nil},  // .pem of our own certificate, for servers that ask for one
		{"creds", nil}, // credentials file, instead of user and password
		{"domain", domain},
		{"inbox_prefix", inboxPrefix},
		{"key", nil},  // .pem of cert's key
		{"nkey", nil}, // file with the seed of an nkey, instead of user and password
		{"replicas", replicas},
		{"tls_first", only("true", "without it the server greets unencrypted and TLS follows")},
	}
)

// setOptions reads the options and checks them, alone and together.
func (u *URL) setOptions(query string, known []option, files Files) error {
	given, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("has options that cannot be read: write ?name=value&name=value")
	}
	data := map[string][]byte{}
	for _, o := range known {
		values := given[o.key]
		delete(given, o.key)
		switch {
		case len(values) == 0:
			continue
		case len(values) > 1:
			return fmt.Errorf("has the option %s twice: remove one", o.key)
		}
		value := values[0]
		if o.value != nil {
			value, err = o.value(value)
		} else {
			value, data[o.key], err = files.open(value)
		}
		if err != nil {
			return fmt.Errorf("%s %w", o.key, err)
		}
		if u.Options == nil {
			u.Options = map[string]string{}
		}
		u.Options[o.key] = value
	}
	if len(given) > 0 {
		names := make([]string, len(known))
		for i, o := range known {
			names[i] = o.key
		}
		return errors.New("has an unknown option: there are " + strings.Join(names, ", "))
	}
	return u.checkAccess(data, files)
}

// open returns the absolute path of the file that an option names, and what it holds.
func (f Files) open(text string) (path string, data []byte, err error) {
	if text == "" {
		return "", nil, errors.New("is empty: give a file")
	}
	if path, err = f.abs(text); err != nil || f.Read == nil {
		return path, nil, err
	}
	if data, err = f.Read(text, path); err != nil {
		return "", nil, fmt.Errorf("names a file that cannot be used: %w", err) // not which: somebody may have pasted what is in it
	}
	return path, data, nil
}

// checkAccess: who we are is proved in one way, and the files for that fit.
func (u *URL) checkAccess(data map[string][]byte, files Files) error {
	var ways []string
	if u.User != "" || u.Token != "" {
		ways = append(ways, "a user")
	}
	for _, key := range []string{"creds", "nkey"} {
		if u.Options[key] != "" {
			ways = append(ways, key)
		}
	}
	switch cert, key := u.Options["cert"] != "", u.Options["key"] != ""; {
	case len(ways) > 1:
		return fmt.Errorf("has %s: give one of them", strings.Join(ways, " and "))
	case cert != key:
		return errors.New("has only one of cert and key: give both, or none")
	case files.Read == nil:
		return nil
	case cert:
		if _, err := keysize.Pair(data["cert"], data["key"]); err != nil {
			return fmt.Errorf("has a cert and a key that cannot be used together: %w", err)
		}
	}
	if u.Options["nkey"] != "" {
		pair, err := nkeys.ParseDecoratedUserNKey(data["nkey"])
		if err != nil {
			return errors.New("nkey holds no seed of a user: it is a line that starts with SU")
		}
		pair.Wipe()
	}
	return nil
}

// only accepts one value; otherwise says what an option that is absent means.
func only(value, otherwise string) func(string) (string, error) {
	return func(text string) (string, error) {
		if text != value {
			return "", fmt.Errorf("must be %s; %s", value, otherwise)
		}
		return text, nil
	}
}

func listen(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if strings.EqualFold(host, "localhost") {
		host = "localhost"
	}
	addr := net.JoinHostPort(host, port)
	switch {
	case err != nil:
		return "", errors.New("must be host:port, like 127.0.0.1:4222")
	case !Local(addr):
		return "", errors.New("must be an address of this machine alone, like 127.0.0.1:4222: a queue for others is a NATS cluster of its own")
	case !validPort(port):
		return "", errors.New("must have a port from 1 to 65535")
	}
	return addr, nil
}

func replicas(text string) (string, error) {
	switch text {
	case "1", "3", "5":
		return text, nil
	}
	// JetStream allows 1 to 5; 2 and 4 bear no more losses than 1 and 3 (Raft).
	return "", errors.New("must be 1, 3 or 5: how many servers of the cluster keep each job")
}

// domain is the name of a JetStream domain: a single token of a subject.
func domain(text string) (string, error) {
	if !token(text) || strings.Contains(text, ".") {
		return "", errors.New("must be the name of a JetStream domain, like hub: without dots, blanks, * and >")
	}
	return text, nil
}

// inboxPrefix is what the subjects of answers begin with.
func inboxPrefix(text string) (string, error) {
	for part := range strings.SplitSeq(text, ".") {
		if !token(part) {
			return "", errors.New("must be a subject without wildcards and without a dot at its end, like _INBOX_propeller")
		}
	}
	return text, nil
}

func token(text string) bool {
	return text != "" && len(text) <= 100 && !strings.ContainsAny(text, "*>") && !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}
