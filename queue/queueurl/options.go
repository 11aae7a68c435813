package queueurl

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode"

	"github.com/nats-io/nkeys"

	"propeller/internal/keysize"
)

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
