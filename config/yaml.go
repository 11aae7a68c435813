package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

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

	top := &table{fields: append(configFields[:len(configFields):len(configFields)], field{key: "defaults", several: true}), where: "at the top"}
	app := &table{fields: appFields, where: "under an app", other: top}
	top.other = &table{fields: appFields, where: "under an app or defaults"}
	global, several := p.layer(root, "", top)
	if kv, ok := several["queue"]; ok {
		cfg.Queue = p.queueNode(kv)
	}
	bad := p.global(global, &cfg)
	defaults := p.defaults(several["defaults"].val, top)
	drafts := p.apps(several["apps"].val, app, defaults)
	delete(several, "apps") // its nodes are most of the file: none is kept while credentials are read
	cfg.Apps = p.finish(drafts, &cfg)
	p.http(global, several, bad, &cfg)
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
func (p *parser) defaults(n *yaml.Node, top *table) layer {
	if n == nil {
		return nil
	}
	l, _ := p.layer(n, "defaults", &table{fields: appFields, where: "under defaults", other: top})
	for _, f := range appFields {
		if e, ok := l[f.key]; ok && f.own {
			p.wrong(e, errors.New("belongs to one app: put it under that app"))
			delete(l, f.key)
		}
	}
	scratch := p.blank
	p.assign(l, appFields, &scratch)
	return l
}

// maxApps bounds the list of apps, each of which costs much more than its few bytes.
const maxApps = 20_000

// apps reads the list of apps, each over the defaults.
func (p *parser) apps(n *yaml.Node, t *table, defaults layer) []*draft {
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
		l, _ := p.layer(item, path, t)
		if item.Kind == yaml.MappingNode || isNull(item) {
			drafts = append(drafts, p.draft(l.over(defaults), path, item.Line))
		}
	}
	return drafts
}

// pair is one key of a YAML mapping with its value.
type pair struct {
	key  string
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

// layer reads a mapping whose values are scalars under the given dotted keys, and
// returns apart what has several values. A key that is a prefix of others ("retry") must
// hold a mapping of those.
func (p *parser) layer(n *yaml.Node, path string, t *table) (l layer, several map[string]pair) {
	l, several = layer{}, map[string]pair{}
	p.flatten(l, several, n, path, "", t)
	return l, several
}

func (p *parser) flatten(out layer, several map[string]pair, n *yaml.Node, path, prefix string, t *table) {
	for _, kv := range p.mapping(n, path) {
		if p.full() {
			return
		}
		full := prefix + kv.key
		f := find(t.fields, full)
		switch {
		case strings.Contains(kv.key, "."): // or retry.min would be a second way to write retry: {min: …}
			p.at(kv.line, kv.path, "%s", t.unknown(prefix, kv.key))
		case f != nil && f.several:
			several[full] = kv
		case f != nil:
			e, ok := p.scalar(kv.val, kv.path)
			e.secret, e.broken, e.cred = f.secret && f.key == full, !ok, f.ofCredential()
			out[full] = e
		case len(t.below(full+".")) > 0:
			p.flatten(out, several, kv.val, kv.path, full+".", t)
		default:
			p.at(kv.line, kv.path, "%s", t.unknown(prefix, kv.key))
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

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced`)
)

// syntax adds the fault of a file that is not YAML. The parser's messages and
// lines need help: some quote the file, which may be a password that lacks its
// quotes, and some lines are those of what surrounds the mistake.
func (p *parser) syntax(err error, data []byte) {
	text := err.Error()
	if m := yamlAnchor.FindStringSubmatch(text); m != nil {
		p.at(lineOf(data, bytes.Index(data, []byte("*"+m[1]))), "",
			`not valid YAML: a value that starts with "*" is an alias: put it in quotes`)
		return
	}
	line := 1 // what the parser means by naming none
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if m[1] != "" {
			line, _ = strconv.Atoi(m[1])
		}
		text = text[len(m[0]):]
	}
	switch {
	case strings.Contains(text, "`"): // quotes a value
		text = `a value does not fit the YAML tag in front of it: put what starts with "!" in quotes`
	case strings.Contains(text, "control characters"):
		line = lineOf(data, bytes.IndexFunc(data, isControl))
	case strings.Contains(text, "UTF-8"):
		line = lineOf(data, invalidUTF8(data))
	case strings.Contains(text, "a tab character"):
		line = tabLine(data, line)
		text = "a tab in front of a line: indent with spaces"
	case strings.HasSuffix(text, "expected key"), strings.HasSuffix(text, "'-' indicator"):
		line++ // yaml.v3 counts from 0 in its grammar's errors
		text += " at some line of the block that starts here: look at the indentation"
	case strings.HasPrefix(text, "did not find expected"):
		line++
		if strings.Contains(text, "','") {
			text += `: inside { } and [ ] put a value that has such a mark in quotes: "${NAME}"`
		}
	}
	p.at(line, "", "not valid YAML: %s", oneLine(text))
}

// lineOf is the line of the byte at i, from 1; 0 for a negative i.
func lineOf(data []byte, i int) int {
	if i < 0 {
		return 0
	}
	return 1 + bytes.Count(data[:i], []byte("\n"))
}

func isControl(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f }

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// tabLine is the first line not before from that is indented with a tab.
func tabLine(data []byte, from int) int {
	lines := bytes.Split(data, []byte("\n"))
	from = min(from, len(lines))
	i := slices.IndexFunc(lines[from-1:], func(l []byte) bool {
		return bytes.HasPrefix(bytes.TrimLeft(l, " "), []byte("\t"))
	})
	return from + max(i, 0)
}
