package config

import (
	"fmt"
	"regexp"
	"strings"

	"propeller/internal/pemfile"
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} by the environment variable and $${ by ${. What a
// variable holds is not expanded again. Errors name the variable only.
func expand(text string, getenv func(string) (string, bool)) (string, error) {
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
	text, err := expand(e.text, p.getenv)
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

// secret returns what a secret's entries in l stand for: the text, or the
// content of the file without the newline that editors end it with.
func (p *parser) secret(l layer, key string) (e entry, text string, given, ok bool) {
	e, inline := l[key]
	f, inFile := l[key+fileSuffix]
	switch {
	case !inline && !inFile:
		return e, "", false, true
	case !inFile:
		text, ok = p.text(e)
		// The URLs among the secrets seldom are any.
		if ok && text == e.text && text != "" && !e.flag && !strings.HasSuffix(key, "webhook") && key != "proxy" {
			p.secretFiles = append(p.secretFiles, p.file)
		}
		return e, text, true, ok
	case inline:
		p.misplaced(f, fmt.Errorf("given beside %s: remove one of the two", key))
		return f, "", true, false
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
