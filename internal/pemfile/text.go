package pemfile

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"regexp"
	"strings"
	"unicode/utf16"
)

// text is text as UTF-8, without byte order marks and with lines that end in \n.
func text(data []byte) []byte {
	data = fromUTF16(data)
	data = bytes.ReplaceAll(data, []byte("\ufeff"), nil) // also in the middle, where a file was appended
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
}

// fromUTF16 makes UTF-8 of UTF-16, as PowerShell writes it, with or without its mark.
func fromUTF16(data []byte) []byte {
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case len(data) < 2:
		return data
	case data[0] == 0xff && data[1] == 0xfe, data[0] != 0 && data[1] == 0:
	case data[0] == 0xfe && data[1] == 0xff, data[0] == 0 && data[1] != 0:
		order = binary.BigEndian
	default:
		return data
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// unbase64 is what base64 of a whole file holds: its PEM or DER; nil if data is something
// else.
func unbase64(data []byte) []byte {
	if marked(data) {
		return nil
	}
	plain := strings.Join(strings.Fields(strings.Trim(string(data), "\"' \t\n")), "")
	plain = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(plain, "="))
	inside, err := base64.RawStdEncoding.DecodeString(plain)
	switch {
	case err != nil || len(inside) < 16: // a word may be base64, too
		return nil
	case isDER(inside):
		return inside
	}
	if inside = text(inside); marked(inside) {
		return inside
	}
	return nil
}

var newline = regexp.MustCompile(`(\\+r)?\\+n`)

// unescape undoes what JSON and environment files do to PEM: \n for the ends of lines,
// and \/.
func unescape(data []byte) []byte {
	if !bytes.Contains(data, []byte(`\`)) {
		return data
	}
	data = newline.ReplaceAll(data, []byte("\n"))
	return bytes.ReplaceAll(data, []byte(`\/`), []byte("/"))
}
