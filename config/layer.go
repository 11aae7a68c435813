package config

import (
	"fmt"
	"maps"
	"regexp"
	"strings"

	"propeller/internal/pemfile"
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

// over returns l laid over the defaults: what l gives wins. A secret and the
// file with it are one thing, so either of l replaces both. So are the keys of
// a credential: an app's own certificate replaces a shared key, and the reverse.
func (l layer) over(defaults layer) layer {
	out := make(layer, len(l)+len(defaults))
	for key, e := range defaults {
		secret, _ := strings.CutSuffix(key, fileSuffix)
		_, own := l[secret]
		_, ownFile := l[secret+fileSuffix]
		if !own && !ownFile && !l.rivals(key) {
			out[key] = e
		}
	}
	maps.Copy(out, l)
	return out
}

// rivals reports whether l has a credential of the other kind than key is of.
func (l layer) rivals(key string) bool {
	kind := credentialOf(key)
	_, cert := l["cert"]
	_, signing := l["key"]
	return cert && kind == "key" || signing && kind == "cert"
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} by the environment variable and $${ by ${. What a
// variable holds is not expanded again. Errors name the variable only.
func expand(text string, getenv func(string) (string, bool)) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil // not a copy: apps share what defaults give
	}
	var out strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			out.WriteString(text)
			return out.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		out.WriteString(text[:i])
		name, rest, ok := strings.Cut(text[i+2:], "}")
		if !ok || !envName.MatchString(name) {
			return "", fmt.Errorf("${ must be followed by a variable's name and }: write $${ for a literal ${")
		}
		value, ok := getenv(name)
		if !ok {
			return "", fmt.Errorf("environment variable %s is not set", name)
		}
		out.WriteString(value)
		text = rest
	}
}

// text returns what an entry stands for.
func (p *parser) text(e entry) (string, bool) {
	switch {
	case e.broken:
		return "", false
	case e.flag:
		return e.text, true
	}
	text, err := expand(e.text, p.Getenv)
	if err != nil {
		p.wrong(e, err)
		return "", false
	}
	return text, true
}

// wrong adds a fault of an entry.
func (p *parser) wrong(e entry, err error) {
	f := Fault{Line: e.line, Key: e.key, Msg: oneLine(err.Error()), Err: err}
	if !e.secret && !pemfile.Holds(e.text) {
		f.Value = shown(e.text)
	}
	if e.cred {
		f.File = p.file
		p.credential = append(p.credential, f)
		return
	}
	p.add(f)
}

// misplaced adds a fault of an entry that should not be there, or should: however
// good a credential is, this is the file's fault.
func (p *parser) misplaced(e entry, err error) {
	e.cred = false
	p.wrong(e, err)
}

// read returns what a field's entry in l stands for. That of a secret may be the content
// of a file without the newline that editors end it with.
func (p *parser) read(l layer, of *field) (e entry, text string, given, ok bool) {
	e, inline := l[of.key]
	f, inFile := l[of.key+fileSuffix]
	inFile = inFile && of.secret
	switch {
	case !inline && !inFile:
		return e, "", false, true
	case inline && inFile:
		p.misplaced(f, fmt.Errorf("given together with %s: remove one of the two", of.key))
		return f, "", true, false
	case inline:
		text, ok = p.text(e)
		// A URL among the secrets seldom holds one.
		if of.secret && of.tag.Get("as") != "webhook" && of.tag.Get("as") != "proxy" && ok && text == e.text && text != "" && !e.flag {
			p.secretFiles = append(p.secretFiles, p.file)
		}
		return e, text, true, ok
	}
	path, ok := p.text(f)
	if !ok {
		return f, "", true, false
	}
	if path == "" {
		p.wrong(f, errEmpty)
		return f, "", true, false
	}
	p.secretFiles = append(p.secretFiles, p.path(path))
	data, err := readFile(p.path(path), maxSecretFile)
	if err != nil {
		p.wrong(f, p.hint(path, err))
		return f, "", true, false
	}
	return f, strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), true, true
}

// oneLine keeps a fault on one line whatever an error of another package says.
func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
