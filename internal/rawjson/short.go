package rawjson

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendShort appends a value that is known to be JSON in UTF-8 to b, in its shortest
// form: without blanks outside strings, and with no escape that may be written as UTF-8.
// Numbers stay as they were written, and so does half of a surrogate pair, for which
// there is no UTF-8.
func AppendShort(b, value []byte) []byte {
	if isShort(value) {
		return append(b, value...)
	}
	for i := 0; i < len(value); {
		switch c := value[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
		case '"':
			n := stringLen(value[i:])
			b = appendShortString(b, value[i:i+n])
			i += n
		default:
			b = append(b, c)
			i++
		}
	}
	return b
}

// Short is AppendShort without a copy where there is nothing to shorten.
func Short(value []byte) []byte {
	if isShort(value) {
		return value
	}
	return AppendShort(make([]byte, 0, len(value)), value)
}

// isShort says that there is nothing to shorten. There may be nothing although it does not.
func isShort(value []byte) bool {
	if bytes.IndexByte(value, '\\') >= 0 {
		return false
	}
	return value[0] != '{' && value[0] != '[' || !bytes.ContainsAny(value, " \t\r\n")
}

// stringLen is how long the string is that text begins with, quotes included.
func stringLen(text []byte) int {
	n := 1
	for text[n] != '"' {
		if text[n] == '\\' {
			n++
		}
		n++
	}
	return n + 1
}

func appendShortString(b, s []byte) []byte {
	if bytes.IndexByte(s, '\\') < 0 {
		return append(b, s...)
	}
	text, err := jsontext.AppendUnquote(nil, s)
	if err == nil {
		b, _ = jsontext.AppendQuote(b, text) // it is UTF-8
		return b
	}
	return appendHalves(b, s)
}

// appendHalves is appendShortString for a string with halves of surrogate pairs: what
// stands between them is shortened.
func appendHalves(b, s []byte) []byte {
	const escape = len(`\u0000`)
	b = append(b, '"')
	from := 1
	for i := 1; i < len(s)-1; {
		r := escaped(s[i:])
		switch {
		case s[i] != '\\':
			i++
		case r < 0:
			i += len(`\n`)
		case !utf16.IsSurrogate(r):
			i += escape
		case utf16.DecodeRune(r, escaped(s[i+escape:])) != utf8.RuneError:
			i += 2 * escape
		default:
			b = append(appendBetween(b, s[from:i]), s[i:i+escape]...)
			i += escape
			from = i
		}
	}
	return append(appendBetween(b, s[from:len(s)-1]), '"')
}

// appendBetween is appendShortString for a part of one, without quotes.
func appendBetween(b, part []byte) []byte {
	if bytes.IndexByte(part, '\\') < 0 {
		return append(b, part...)
	}
	short := appendShortString(nil, append(append([]byte{'"'}, part...), '"'))
	return append(b, short[1:len(short)-1]...)
}

// escaped is the number in the escape that text begins with, such as \u00e9; -1 if it
// begins with anything else.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
