package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// maxReplicas is what JetStream allows (docs.nats.io, "Streams").
const maxReplicas = 5

// queueOption is one option behind the "?" of a queue's URL.
type queueOption struct {
	key string
	// value brings the value into its one form.
	value func(p *parser, text string) (string, error)
}

// Never written to.
var (
	embeddedOptions = []queueOption{{"fsync", fsyncOption}, {"listen", listenOption}}
	natsOptions     = []queueOption{{"creds", credsOption}, {"replicas", replicasOption}}
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
		return "", errors.New("has an unknown option: there are " + strings.Join(names, " and "))
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
	case !loopback(host):
		return "", errors.New("listen must be an address of this machine alone, like 127.0.0.1:4222: a queue for others is a NATS cluster of its own")
	case !validPort(port):
		return "", errPort
	}
	return net.JoinHostPort(host, port), nil
}

func replicasOption(_ *parser, text string) (string, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxReplicas {
		return "", fmt.Errorf("replicas must be from 1 to %d: how many servers of the cluster keep each job", maxReplicas)
	}
	return strconv.Itoa(n), nil
}

func credsOption(p *parser, text string) (string, error) {
	if text == "" {
		return "", errors.New("creds is empty: give a file")
	}
	path, err := filepath.Abs(p.path(text))
	if err != nil {
		return "", errCause{"creds is relative to a folder that cannot be found out", err}
	}
	if _, err := readFile(path, maxSecretFile); err != nil {
		return "", fmt.Errorf("creds: %w", p.hint(text, err))
	}
	return path, nil
}
