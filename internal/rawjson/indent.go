package rawjson

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxIndent is how many levels are indented: what is deeper stands below them.
const maxIndent = 16

// Indent is text for people: a line for each value, each line after the first behind
// prefix, each string and number as it was written. It has about most bytes, then it
// ends with an ellipsis, whatever text would need. What is no JSON, or nested more than
// MaxDepth deep, stays as it is, cut in the same way.
func Indent(text, prefix string, most int) string {
	if !Valid([]byte(text)) {
		return Cut(text, most)
	}
	r := open([]byte(text))
	defer r.close()
	var b strings.Builder
	for b.Len() < most {
		kind := r.dec.PeekKind()
		if kind == 0 { // the end
			return b.String()
		}
		r.separate(&b, kind, prefix)
		switch kind {
		case '{', '[', '}', ']':
			if _, err := r.dec.ReadToken(); err != nil {
				return b.String() // it is JSON: cannot be
			}
			b.WriteByte(byte(kind))
		default:
			value, err := r.dec.ReadValue()
			if err != nil {
				return b.String()
			}
			b.WriteString(Cut(string(value[:min(len(value), most+1)]), most))
		}
	}
	return b.String() + "…"
}

// separate writes what stands between the last token and one of this kind.
func (r *reader) separate(b *strings.Builder, kind jsontext.Kind, prefix string) {
	depth := r.dec.StackDepth()
	if depth == 0 {
		return
	}
	in, n := r.dec.StackIndex(depth)
	switch {
	case kind == '}' || kind == ']':
		if n == 0 {
			return
		}
		depth--
	case in == '{' && n%2 == 1:
		b.WriteString(": ")
		return
	case n > 0:
		b.WriteByte(',')
	}
	b.WriteString("\n" + prefix)
	for range min(depth, maxIndent) {
		b.WriteString("  ")
	}
}

// Cut is at most so many bytes of text, with an ellipsis behind them if there are more.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return string(bytes.ToValidUTF8([]byte(text[:most]), nil)) + "…"
}
