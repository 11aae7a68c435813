package config

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

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
