package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxQueues: every worker keeps a connection to each server.
const maxQueues = 32

// Queues are URLs of queues in the form that queueURL (queue_url.go) gives
// them. One URL, or several of beanstalkd servers that share the jobs. A URL may
// hold a password: fmt with any verb, JSON, YAML and slog show [secret] in its
// place, and so does Redacted. A single element is the plain URL.
type Queues []string

// Redacted returns the URLs with users and passwords masked.
func (q Queues) Redacted() []string {
	out := make([]string, len(q))
	for i, text := range q {
		out[i] = redactQueue(text)
	}
	return out
}

// Folder is where an embedded queue is kept; "" for other queues.
func (q Queues) Folder() string {
	if len(q) != 1 {
		return ""
	}
	u, err := url.Parse(q[0])
	if err != nil || u.Scheme != embeddedScheme { // NATS URLs are none to net/url
		return ""
	}
	return u.Path
}

// Format prints Redacted whatever the verb and flags.
func (q Queues) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), q.Redacted())
}

// MarshalJSON returns the JSON of Redacted.
func (q Queues) MarshalJSON() ([]byte, error) { return json.Marshal(q.Redacted()) }

// MarshalYAML returns Redacted.
func (q Queues) MarshalYAML() (any, error) { return q.Redacted(), nil }

// ParseQueue reads the URL of a queue, or those of several beanstalkd servers
// separated by commas, as the flag --queue has it. Of the options only Dir
// matters: relative paths start there. The error is a Faults that tells no
// password.
func ParseQueue(text string, o Options) (Queues, error) {
	p := newParser("", o)
	urls := p.queueFlag(text)
	if len(p.faults) > 0 {
		return nil, p.faults.sorted()
	}
	return urls, nil
}

// queueFlag reads the value of --queue. Commas stand between URLs, and also
// between the servers of a NATS URL.
func (p *parser) queueFlag(text string) Queues {
	var entries []entry
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if last := len(entries) - 1; last >= 0 && isNATS(entries[last].text) && !strings.Contains(part, ":/") {
			entries[last].text += "," + part
			continue
		}
		entries = append(entries, entry{text: part, key: flagPath + "queue", flag: true})
	}
	return p.queues(entries)
}

// queueNode reads the URL, or the list of URLs, of queue.
func (p *parser) queueNode(kv pair) Queues {
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
func (p *parser) queues(entries []entry) Queues {
	if len(entries) > maxQueues {
		e := entries[maxQueues]
		p.at(e.line, e.key, "more than %d servers: every worker keeps a connection to each", maxQueues)
		return nil
	}
	var urls Queues
	first := map[string]entry{}
	for _, e := range entries {
		text, ok := p.text(e)
		if !ok {
			continue
		}
		e.secret = isNATS(text) // one without its "@host" would pass for host:port
		u, err := p.queueURL(text)
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
	if i := slices.IndexFunc(urls, func(u string) bool { return !strings.HasPrefix(u, beanstalkScheme+":") }); i >= 0 && len(urls) > 1 {
		p.wrong(first[urls[i]], errors.New("is not alone: a list is for several beanstalkd servers; the servers of a NATS cluster stand in one URL, like nats://a:4222,b:4222"))
	}
	return urls
}
