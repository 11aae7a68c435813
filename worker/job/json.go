package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"propeller/internal/rawjson"
)

// The job is cut into raw JSON values and the payload is assembled from them: nothing is
// decoded and encoded again, so that each number stays as the producer wrote it.

// eachMember calls f with the name and the raw value of each member of the
// object obj, which is known to be one, in order, until f returns an error.
func eachMember(obj []byte, f func(name string, value []byte) error) error {
	return rawjson.Members(obj, func(name, value []byte) error { return f(nameOf(name), value) })
}

// bodyMembers is eachMember for what may be anything. If body is no JSON object in
// UTF-8, object is false and err, a *Error, says so; else err is f's.
func bodyMembers(body []byte, f func(name string, value []byte) error) (object bool, err error) {
	if !utf8.Valid(body) {
		return false, &Error{"", "not UTF-8"}
	}
	err = eachMember(body, f)
	if err == nil {
		return true, nil
	}
	var syntax *rawjson.SyntaxError
	switch {
	case errors.Is(err, rawjson.ErrKind):
		return false, &Error{"", "not a JSON object"}
	case errors.Is(err, rawjson.ErrDepth):
		return false, &Error{"", err.Error()}
	case !errors.As(err, &syntax):
		return true, err
	case rawjson.Begin(body) == 0:
		return false, &Error{"", "empty"}
	}
	return false, &Error{"", "not JSON"}
}

// isJSONObject says whether body is a JSON object in UTF-8.
func isJSONObject(body []byte) bool {
	object, _ := bodyMembers(body, func(string, []byte) error { return nil })
	return object
}

// text is the value of a raw JSON string.
func text(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	s, _ := jsontext.AppendUnquote(nil, raw) // an error is about half of a surrogate pair, which has become U+FFFD
	return string(s)
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
func isEmptyList(raw []byte) bool {
	return isList(raw) && len(bytes.Trim(raw[1:len(raw)-1], " \t\r\n")) == 0
}
func isNumber(raw []byte) bool { return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' }

// emptyObject is what a list without elements counts as where an object is due: PHP writes
// both in the same way.
const emptyObject = "{}"

// maxDigits is more than a number has, with some zeros in front.
const maxDigits = 30

// digits is the text of a number: of a string the white space around it is no part.
func digits(raw []byte) []byte {
	switch {
	case !isString(raw):
		return raw
	case bytes.IndexByte(raw, '\\') >= 0: // perhaps a line end
		return bytes.TrimSpace([]byte(text(raw)))
	}
	return bytes.TrimSpace(raw[1 : len(raw)-1])
}

// wholeNumber reads a JSON number without fraction or exponent, or a string of
// digits, as form clients send them. The result is in 0…math.MaxInt64.
func wholeNumber(raw []byte) (int64, bool) {
	raw = digits(raw)
	if len(raw) == 0 || len(raw) > maxDigits || raw[0] == '+' || raw[0] == '-' {
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
