package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"gopkg.in/yaml.v3"
)

// document reads a whole file. The Config is of use only without faults.
func (p *parser) document(data []byte) Config {
	cfg := Default()
	cfg.File = p.file
	if len(data) > maxFile {
		p.at(0, "", "is larger than %d KiB", maxFile>>10)
		return cfg
	}
	root, ok := p.yaml(data)
	if !ok {
		return cfg
	}

	var defaults, apps *yaml.Node
	var keyPlaces []entry
	top := schemaOf("at the top", globalFields(), append([]string{"queue", "defaults", "apps"}, httpLists...)...)
	one := appSchema("under an app or defaults")
	top.other = &one
	global := p.layer(root, "", top, func(kv pair) bool {
		switch kv.full {
		case "http.keys":
			cfg.HTTP.Keys, keyPlaces = p.httpKeys(kv)
		case "http.trusted_proxies":
			cfg.HTTP.TrustedProxies = p.proxies(kv)
		case "queue":
			cfg.Queue = p.queueNode(kv)
		case "defaults":
			defaults = kv.val
		case "apps":
			apps = kv.val
		default:
			return false
		}
		return true
	})
	bad := p.global(global, &cfg)

	cfg.Apps = p.finish(p.apps(apps, p.defaults(defaults)), &cfg)
	p.checkHTTP(global, bad, &cfg, keyPlaces)
	p.warnOfRights(&cfg)
	return cfg
}

// maxDirectives bounds the directives, which yaml.v3 compares with each other.
const maxDirectives = 10

// directives counts what may be one, at the start of a line in any of the encodings
// that YAML has.
func directives(data []byte) int {
	data = bytes.ReplaceAll(data, []byte{0}, nil) // UTF-16
	return bytes.Count(data, []byte("%TAG")) + bytes.Count(data, []byte("%YAML"))
}

// yaml parses data into the node of the one document's mapping.
func (p *parser) yaml(data []byte) (*yaml.Node, bool) {
	if n := directives(data); n > maxDirectives {
		p.at(0, "", `has %d YAML directives (%%TAG, %%YAML), and at most %d are read: it needs none`, n, maxDirectives)
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && isNull(doc.Content[0]) {
		p.at(0, "", "is empty: it needs at least apps with one topic")
		return nil, false
	}
	if err != nil {
		p.syntax(err, data)
		return nil, false
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		p.at(root.Line, "", "must be a mapping (lines of key: value) at the top, not %s", kindOf(root))
		return nil, false
	}
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
		return root, true
	case err != nil:
		p.syntax(err, data)
	default:
		p.at(second.Line, "", "a second YAML document (after ---) is not read: remove it")
	}
	return nil, false
}

// defaults reads what all apps share. It is checked once by itself, so that a
// fault shows even when every app overrides the key.
func (p *parser) defaults(n *yaml.Node) layer {
	if n == nil {
		return nil
	}
	top := schemaOf("under defaults", globalFields(), "queue")
	top.where = "at the top"
	s := appSchema("under defaults")
	s.other = &top
	var own []string
	for _, f := range appFields() {
		if f.own {
			own = append(own, f.key)
		}
	}
	l := p.layer(n, "defaults", s, nil)
	for _, key := range own {
		if e, ok := l[key]; ok {
			p.wrong(e, errors.New("belongs to one app: put it under that app"))
			delete(l, key)
		}
	}
	scratch := Default().Apps[0]
	assign(p, l, appFields(), &scratch)
	return l
}

// maxApps bounds the list of apps, each of which costs much more than its few bytes.
const maxApps = 20_000

// apps reads the list of apps, each over the defaults.
func (p *parser) apps(n *yaml.Node, defaults layer) []*draft {
	switch {
	case n == nil || isNull(n) || n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		line := 0
		if n != nil {
			line = n.Line
		}
		p.at(line, "apps", `no app: add a list entry that starts with "- topic: com.example.app"`)
		return nil
	case n.Kind != yaml.SequenceNode:
		p.at(n.Line, "apps", `must be a list whose entries start with "- topic: …", not %s`, kindOf(n))
		return nil
	}
	top := schemaOf("at the top", globalFields(), "queue")
	s := appSchema("under an app")
	s.other = &top
	var drafts []*draft
	if len(n.Content) > maxApps {
		p.at(n.Line, "apps", "has %d entries, and at most %d are served by one daemon", len(n.Content), maxApps)
		return nil
	}
	for i, item := range n.Content {
		if p.full() {
			return nil
		}
		path := fmt.Sprintf("apps[%d]", i)
		l := p.layer(item, path, s, nil)
		if item.Kind == yaml.MappingNode || isNull(item) {
			drafts = append(drafts, p.draft(l.over(defaults, s.secrets), path, item.Line))
		}
	}
	return drafts
}

func appSchema(where string) schema { return schemaOf(where, appFields()) }
