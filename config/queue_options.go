package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// queueOption is one option behind the "?" of a queue's URL.
type queueOption struct {
	key string
	// value brings the value into its one form.
	value func(p *parser, text string) (string, error)
}

// Never written to.
var (
	embeddedOptions = []queueOption{{"fsync", fsyncOption}, {"listen", listenOption}}
	natsOptions     = []queueOption{{"ca", caOption}, {"creds", credsOption}, {"replicas", replicasOption}}
)

// queueOptions checks the options of a URL; it returns them with the "?", in
// the order of their keys.
func (p *parser) queueOptions(rawQuery string, known []queueOption) (string, error) {
	given, err := url.ParseQuery(rawQuery)
	if err != nil {
		return "", errors.New("has options that cannot be read: write ?name=value&name=value")
	}
	var out []string
	for _, o := range known {
		values := given[o.key]
		delete(given, o.key)
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return "", fmt.Errorf("has the option %s twice: remove one", o.key)
		}
		value, err := o.value(p, values[0])
		if err != nil {
			return "", err
		}
		out = append(out, o.key+"="+optionEscaper.Replace(url.QueryEscape(value)))
	}
	if len(given) > 0 {
		names := make([]string, len(known))
		for i, o := range known {
			names[i] = o.key
		}
		return "", errors.New("has an unknown option: there are " + strings.Join(names, ", "))
	}
	if out == nil {
		return "", nil
	}
	return "?" + strings.Join(out, "&"), nil
}

// optionEscaper leaves readable what needs no escape in a query (RFC 3986 §3.4).
var optionEscaper = strings.NewReplacer("%2F", "/", "%3A", ":")

func fsyncOption(_ *parser, text string) (string, error) {
	if text != "always" {
		return "", errors.New("fsync must be always; without it the disk is written once a second")
	}
	return text, nil
}

func listenOption(_ *parser, text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	switch {
	case err != nil:
		return "", errors.New("listen must be host:port, like 127.0.0.1:4222")
	case strings.EqualFold(host, "localhost"):
		host = "localhost"
	case net.ParseIP(host) == nil || !loopback(host):
		return "", errors.New("listen must be an address of this machine alone, like 127.0.0.1:4222: a queue for others is a NATS cluster of its own")
	}
	if !validPort(port) {
		return "", errPort
	}
	return net.JoinHostPort(host, port), nil
}

func replicasOption(_ *parser, text string) (string, error) {
	switch text {
	case "1", "3", "5":
		return text, nil
	}
	// JetStream allows 1 to 5; 2 and 4 bear no more losses than 1 and 3 (Raft).
	return "", errors.New("replicas must be 1, 3 or 5: how many servers of the cluster keep each job")
}

func credsOption(p *parser, text string) (string, error) {
	path, _, err := p.optionFile("creds", text)
	return path, err
}

func caOption(p *parser, text string) (string, error) {
	path, data, err := p.optionFile("ca", text)
	if err != nil {
		return "", err
	}
	if err := addRoots(x509.NewCertPool(), data); err != nil {
		return "", fmt.Errorf("ca: %w", err)
	}
	return path, nil
}

// optionFile reads the file that an option names and returns its absolute path.
func (p *parser) optionFile(key, text string) (path string, data []byte, err error) {
	if text == "" {
		return "", nil, fmt.Errorf("%s is empty: give a file", key)
	}
	if path, err = filepath.Abs(p.path(text)); err != nil {
		return "", nil, errCause{key + " is relative to a folder that cannot be found out", err}
	}
	if data, err = readFile(path, maxFile); err != nil {
		return "", nil, fmt.Errorf("%s: %w", key, p.hint(text, err))
	}
	return path, data, nil
}
