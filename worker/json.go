package worker

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// The job is cut into raw JSON values and the payload is assembled from them,
// so that what the producer wrote reaches the device byte for byte and nothing
// is decoded and encoded again. All functions here take JSON that json.Valid
// has accepted.

// eachMember calls f with the name and the raw value of each member of the
// object obj, in order, until f returns an error.
func eachMember(obj []byte, f func(name string, value []byte) error) error {
	rest := skipSpace(obj)[1:] // '{'
	for {
		rest = skipSpace(rest)
		switch rest[0] {
		case '}':
			return nil
		case ',':
			rest = skipSpace(rest[1:])
		}
		n := valueLen(rest)
		name := rest[:n]
		rest = skipSpace(skipSpace(rest[n:])[1:]) // ':'
		n = valueLen(rest)
		if err := f(nameOf(name), rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
}

// eachElement calls f with the place of each element of the list, which begins
// with '[': its number, and where in list its value begins and ends.
func eachElement(list []byte, f func(i, from, to int)) {
	at := 1
	for i := 0; ; i++ {
		at = len(list) - len(skipSpace(list[at:]))
		if list[at] == ',' {
			at = len(list) - len(skipSpace(list[at+1:]))
		}
		if list[at] == ']' {
			return
		}
		n := valueLen(list[at:])
		f(i, at, at+n)
		at += n
	}
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\r' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// valueLen is the length of the JSON value that b begins with.
func valueLen(b []byte) int {
	switch b[0] {
	case '"':
		return stringLen(b)
	case '{', '[':
		depth := 0
		for i := 0; i < len(b); i++ {
			switch b[i] {
			case '"':
				i += stringLen(b[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return len(b)
	}
	if n := bytes.IndexAny(b, ",}] \n\r\t"); n >= 0 {
		return n
	}
	return len(b)
}

// stringLen is the length of the JSON string that b begins with, quotes included.
func stringLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// text is the value of a raw JSON string.
func text(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// nameOf is text for the name of a member: one of a job's keys needs no memory.
func nameOf(raw []byte) string {
	for k := range jobKeys {
		if name := jobKeys[k].name; name == string(raw[1:len(raw)-1]) {
			return name
		}
	}
	return text(raw)
}

func isString(raw []byte) bool { return raw[0] == '"' }
func isObject(raw []byte) bool { return raw[0] == '{' }
func isList(raw []byte) bool   { return raw[0] == '[' }
func isNull(raw []byte) bool   { return raw[0] == 'n' }
func isNumber(raw []byte) bool { return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' }

// wholeNumber reads a JSON number without fraction or exponent, or a string of
// digits, as form clients send them. The result is in 0…math.MaxInt64.
func wholeNumber(raw []byte) (int64, bool) {
	if isString(raw) {
		raw = raw[1 : len(raw)-1]
	}
	if len(raw) == 0 || raw[0] == '+' || raw[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return n, err == nil
}

// flag reads true, false, 1 or 0.
func flag(raw []byte) (on, ok bool) {
	switch string(raw) {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

// appendName writes s as a JSON string. What is no UTF-8 in it is replaced.
func appendName(b []byte, s string) []byte {
	valid := utf8.ValidString(s)
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || !valid {
			q, err := json.Marshal(s)
			if err != nil { // strings always marshal
				return append(b, `""`...)
			}
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
