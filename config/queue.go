package config

import (
	"crypto/x509"
	"fmt"

	"gopkg.in/yaml.v3"

	"propeller/internal/files"
	"propeller/internal/keysize"
	"propeller/internal/pemfile"
	"propeller/queue/queueurl"
)

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
	nodes, paths := []*yaml.Node{kv.val}, []string{kv.path}
	switch kv.val.Kind {
	case yaml.MappingNode:
		p.at(kv.val.Line, kv.path, "must be a URL or a list of URLs, not a mapping")
		return queueurl.URL{}
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
	return p.queue(entries)
}

// queue is the queue that all entries are of.
func (p *parser) queue(entries []entry) (all queueurl.URL) {
	for _, e := range entries {
		text, ok := p.text(e)
		if !ok || p.full() {
			continue
		}
		e.secret = queueurl.MayHoldSecret(text) // one without its "@host" would pass for host:port
		u, err := queueurl.Parse(text, queueurl.Files{Dir: p.dir, Read: p.optionFile})
		if err == nil {
			err = p.checkRoots(u.Options["ca"])
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

// checkRoots checks the roots that a queue's URL names, if it does.
func (p *parser) checkRoots(path string) error {
	if path == "" {
		return nil
	}
	data, err := readFile(path, maxFile)
	if err == nil {
		err = keysize.Roots(x509.NewCertPool(), data)
	}
	if err != nil {
		return errCause{"ca: " + pemfile.InFile(err.Error(), path), err}
	}
	return nil
}
