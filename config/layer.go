package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// entry is one value as written, with the place it came from.
type entry struct {
	text   string
	line   int
	key    string // for faults: "apps[1].cert"
	flag   bool   // from the command line: not expanded, paths start at the working directory
	secret bool   // never quoted
	cred   bool   // of an app's credential: what is wrong with it is that app's fault, not the file's
	broken bool   // was no scalar: its fault is written down, there is no text
}

// layer is the entries of one mapping by dotted key: "workers", "retry.min".
type layer map[string]entry

// fileSuffix turns a secret's key into the one that names a file with it.
const fileSuffix = "_file"

// pair is one key of a YAML mapping with its value.
type pair struct {
	key  string
	full string // with the keys above it, dotted: "retry.min"
	path string
	line int
	val  *yaml.Node
}

// mapping returns the pairs of n in order, without the faulty ones. Nothing
// (all keys commented out) is an empty mapping. path is n's place, "" at the
// top.
func (p *parser) mapping(n *yaml.Node, path string) []pair {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		p.at(n.Line, path, "must be a mapping (lines of key: value), not %s", kindOf(n))
		return nil
	}
	var pairs []pair
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode || isNull(k):
			p.at(k.Line, path, "a key must be a plain word, not %s", kindOf(k))
			continue
		case k.ShortTag() == "!!merge":
			p.at(k.Line, path, "merge keys (<<) are not supported: put what the apps share under defaults")
			continue
		}
		at := join(path, k.Value)
		if line, ok := first[k.Value]; ok {
			p.at(k.Line, at, "given twice, first in line %d: remove one", line)
			continue
		}
		first[k.Value] = k.Line
		pairs = append(pairs, pair{key: k.Value, path: at, line: k.Line, val: v})
	}
	return pairs
}

// layer reads a mapping whose values are scalars under the given dotted keys.
// A key that is a prefix of others ("retry") must hold a mapping of those.
// Pairs for which special returns true are left out: it has taken them.
func (p *parser) layer(n *yaml.Node, path string, s schema, special func(pair) bool) layer {
	out := layer{}
	p.flatten(out, n, path, "", s, special)
	return out
}

func (p *parser) flatten(out layer, n *yaml.Node, path, prefix string, s schema, special func(pair) bool) {
	for _, kv := range p.mapping(n, path) {
		if p.full() {
			return
		}
		full := prefix + kv.key
		kv.full = full
		switch {
		case strings.Contains(kv.key, "."): // or retry.min would be a second way to write retry: {min: …}
			p.at(kv.line, kv.path, "%s", s.unknown(prefix, kv.key))
		case special != nil && special(kv):
		case slices.Contains(s.keys, full):
			e, ok := p.scalar(kv.val, kv.path)
			e.secret, e.broken, e.cred = slices.Contains(s.secrets, full), !ok, ofCredential(full)
			out[full] = e
		case s.nested(full):
			p.flatten(out, kv.val, kv.path, full+".", s, special)
		default:
			p.at(kv.line, kv.path, "%s", s.unknown(prefix, kv.key))
		}
	}
}

// scalar returns n's text as it is written. Any plain value will do, 0123 and
// true included: what it must be is the field's matter.
func (p *parser) scalar(n *yaml.Node, path string) (entry, bool) {
	switch {
	case n.Kind == yaml.AliasNode:
		p.at(n.Line, path, `a value that starts with "*" is a YAML alias, which is not supported: put it in quotes, or put what apps share under defaults`)
	case isNull(n):
		p.at(n.Line, path, "has no value: give one or remove the key")
	case n.Kind != yaml.ScalarNode:
		p.at(n.Line, path, "must be a single value, not %s", kindOf(n))
	case n.Style&yaml.TaggedStyle != 0 && n.ShortTag() != "!!str":
		p.at(n.Line, path, `a value that starts with "!" is a YAML tag, which is not supported: put it in quotes`)
	default:
		return entry{text: n.Value, line: n.Line, key: path}, true
	}
	return entry{line: n.Line, key: path}, false
}

// over returns l laid over the defaults: what l gives wins. A secret and the
// file with it are one thing, so either of l replaces both. So are the keys of
// a credential: an app's own certificate replaces a shared key, and the reverse.
func (l layer) over(defaults layer, secrets []string) layer {
	out := make(layer, len(l)+len(defaults))
	for k, e := range defaults {
		if !l.rivals(k) {
			out[k] = e
		}
	}
	for _, s := range secrets {
		_, own := l[s]
		_, ownFile := l[s+fileSuffix]
		if own || ownFile {
			delete(out, s)
			delete(out, s+fileSuffix)
		}
	}
	for k, e := range l {
		out[k] = e
	}
	return out
}

// rivals reports whether l has a credential of the other kind than key is of.
func (l layer) rivals(key string) bool {
	_, cert := l[certKeys[0]]
	_, signing := l[keyKeys[0]]
	return cert && slices.Contains(keyKeys, key) || signing && slices.Contains(certKeys, key)
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)

// join puts a key below a path. A key that is no plain word is quoted, so that
// a fault stays one readable line.
func join(path, key string) string {
	if !plainKey.MatchString(key) {
		key = strconv.Quote(shown(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func kindOf(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias (aliases are not supported)"
	}
	return "a single value"
}
