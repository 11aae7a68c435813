package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	"gopkg.in/yaml.v3"
)

const (
	queueScheme = "beanstalk"
	queuePort   = "11300" // beanstalkd's own default
	// maxQueues: every worker keeps a connection to each server.
	maxQueues = 32
)

// queueNode reads the URL, or the list of URLs, of queue.
func (p *parser) queueNode(kv pair) []string {
	nodes, paths := []*yaml.Node{kv.val}, []string{kv.path}
	switch kv.val.Kind {
	case yaml.MappingNode:
		p.at(kv.val.Line, kv.path, "must be a URL or a list of URLs, not a mapping")
		return nil
	case yaml.SequenceNode:
		nodes, paths = kv.val.Content, nil
		for i := range nodes {
			paths = append(paths, fmt.Sprintf("%s[%d]", kv.path, i))
		}
	}
	var entries []entry
	for i, n := range nodes {
		if e, ok := p.scalar(n, paths[i]); ok {
			entries = append(entries, e)
		}
	}
	if len(nodes) == 0 {
		p.at(kv.val.Line, kv.path, "is an empty list: give a URL or remove the key")
	}
	return p.queues(entries)
}

// queues turns entries into URLs, each server once.
func (p *parser) queues(entries []entry) []string {
	if len(entries) > maxQueues {
		e := entries[maxQueues]
		p.at(e.line, e.key, "more than %d servers: every worker keeps a connection to each", maxQueues)
		return nil
	}
	var urls []string
	first := map[string]entry{}
	for _, e := range entries {
		text, ok := p.text(e)
		if !ok {
			continue
		}
		u, err := queueURL(text)
		if err != nil {
			p.wrong(e, err)
			continue
		}
		if f, ok := first[u]; ok {
			p.wrong(e, fmt.Errorf("the same server as %s: remove one", f.key))
			continue
		}
		first[u] = e
		urls = append(urls, u)
	}
	return urls
}

// queueURL checks a queue's URL and fills in the port. Its errors do not quote
// the text: somebody may have put a password into it.
func queueURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("is not a URL: write beanstalk://host:port")
	}
	switch {
	case u.Scheme == "nats" || u.Scheme == "embedded":
		return "", errors.New("this version does not have that queue yet: use beanstalk://host:port")
	case u.Scheme != queueScheme:
		return "", errors.New("must start with beanstalk://, like beanstalk://127.0.0.1:11300")
	case u.User != nil:
		return "", errors.New("beanstalkd knows no user or password: write beanstalk://host:port")
	case u.Hostname() == "":
		return "", errors.New("has no host: write beanstalk://host:port")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", errors.New("has something behind the port: write beanstalk://host:port")
	}
	port := u.Port()
	if port == "" {
		port = queuePort
	}
	if !validPort(port) {
		return "", errors.New("the port must be from 1 to 65535")
	}
	return queueScheme + "://" + net.JoinHostPort(u.Hostname(), port), nil
}
