// Package pemfile reads files of certificates and keys as people have them: DER, or PEM that may
// have gone through editors, mails and environment variables. Errors name the line that cannot
// be read; nothing is skipped silently.
package pemfile

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf16"
)

// Block is a PEM block, or a whole file that is not PEM, with the type that PEM would give it
// (PKCS12 for a .p12).
type Block struct {
	pem.Block
	Line int // where it begins; 0 if the file is not PEM
}

// At is the block's place in the file, for people.
func (b *Block) At() string {
	if b.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" at line %d", b.Line)
}

// Convert is the openssl command that converts the block to PEM; options are what the command
// needs in addition to the file.
func (b *Block) Convert(command, options string) string {
	if b.Line == 0 {
		command += " -inform DER"
	}
	if options != "" {
		options = " " + options
	}
	return "openssl " + command + " -in " + File + options + " -out new.pem"
}

// ErrNeither is the error for any other file.
var ErrNeither = errors.New("is neither PEM nor DER")

// Parse returns the file's blocks in order. Errors are sentences whose subject, the file, is left
// out, and quote nothing of it.
func Parse(data []byte) ([]Block, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty: copy or export it again")
	}
	if !isDER(data) {
		data = text(data)
		if inside := unbase64(data); inside != nil {
			data = inside
		}
		if marked(data) {
			return parsePEM(unescape(data))
		}
	}
	if !isDER(data) {
		return nil, ErrNeither
	}
	return parseDER(data)
}

// Holds reports whether text, which should be the name of a file, is the content of one: it may
// be a private key.
func Holds(text string) bool {
	data := []byte(text)
	return marked(data) || unbase64(data) != nil
}

// File stands for the file's name in a sentence; InFile replaces it.
const File = "FILE"

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.+@][A-Za-z0-9_.+@-]*$`)

// InFile puts the file's name, without its folder, into a sentence with a command.
func InFile(sentence, path string) string {
	name := filepath.Base(path)
	if !plainName.MatchString(name) {
		name = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return strings.ReplaceAll(sentence, File, name)
}

// mark begins or ends a block. It need not have a line of its own, and its dashes may be those
// of word processors, which are longer and fewer.
var mark = regexp.MustCompile(dash + ` *(BEGIN|END) ([A-Z0-9][A-Z0-9 .]{0,40}?) *` + dash)

const dash = `[-\x{2010}-\x{2015}\x{2212}]{2,5}`

// marked reports whether there is a mark; most data without one is recognized quickly.
func marked(data []byte) bool {
	return (bytes.Contains(data, []byte("BEGIN ")) || bytes.Contains(data, []byte("END "))) && mark.Match(data)
}

var comment = regexp.MustCompile(`(?m)^[ \t]*#.*$`)

// parsePEM reads a block for each BEGIN and END, and ignores other text.
func parsePEM(data []byte) (blocks []Block, err error) {
	data = comment.ReplaceAll(data, nil)
	marks := mark.FindAllSubmatchIndex(data, -1)
	line, seen := 1, 0
	for i := 0; i < len(marks); i++ {
		m := marks[i]
		line += bytes.Count(data[seen:m[0]], []byte("\n"))
		seen = m[0]
		kind := string(data[m[4]:m[5]])
		if string(data[m[2]:m[3]]) == "END" {
			return nil, fmt.Errorf("is damaged: line %d ends a %s that has no BEGIN line; copy or export the file again, or remove that line", line, kind)
		}
		if i++; i == len(marks) || string(data[marks[i][2]:marks[i][3]]) != "END" {
			return nil, fmt.Errorf("is damaged: the %s that begins at line %d has no END line; copy or export the file again, or remove that block", kind, line)
		}
		end := marks[i]
		if ends := string(data[end[4]:end[5]]); ends != kind {
			return nil, fmt.Errorf("is damaged: the %s that begins at line %d ends as a %s; copy or export the file again, or remove that block", kind, line, ends)
		}
		b, bad := decode(kind, data[m[1]:end[0]])
		if b == nil {
			return nil, fmt.Errorf("is damaged: the %s that begins at line %d %s; copy or export the file again, or remove that block", kind, line, wrong(line, bad))
		}
		blocks = append(blocks, Block{*b, line})
	}
	return blocks, nil
}

// wrong says why a block cannot be decoded.
func wrong(line, bad int) string {
	if bad < 0 {
		return "lacks a part"
	}
	return fmt.Sprintf("cannot be decoded, line %d is not base64", line+bad)
}

var (
	base64Line = regexp.MustCompile(`^[A-Za-z0-9+/ \t]*=?=? *$`)
	headerLine = regexp.MustCompile(`^[A-Za-z0-9-]+: `)
)

// decode cleans a block up and decodes it. If that fails, it returns the first bad line, counted
// from the BEGIN line; -1 if no line is bad.
func decode(kind string, body []byte) (b *pem.Block, bad int) {
	var clean bytes.Buffer
	bad = -1
	first, _ := fmt.Fprintf(&clean, "-----BEGIN %s-----\n", kind)
	for i, line := range bytes.Split(body, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 && clean.Len() == first {
			continue // an empty first line would hide the headers
		}
		if bad < 0 && len(line) > 0 && !base64Line.Match(line) && !headerLine.Match(line) {
			bad = i
		}
		clean.Write(line)
		clean.WriteByte('\n')
	}
	fmt.Fprintf(&clean, "-----END %s-----\n", kind)
	if b, _ = pem.Decode(clean.Bytes()); b != nil && len(b.Bytes) == 0 {
		return nil, bad
	}
	return b, bad
}

// text converts text to UTF-8, without byte order marks and with \n as line ends.
func text(data []byte) []byte {
	data = fromUTF16(data)
	data = bytes.ReplaceAll(data, []byte("\ufeff"), nil) // also in the middle, where files were joined
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
}

// fromUTF16 converts UTF-16, which PowerShell writes, with or without its mark.
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

// unbase64 decodes a whole file in base64 to its PEM or DER; nil if data is anything else.
func unbase64(data []byte) []byte {
	if marked(data) {
		return nil
	}
	plain := strings.Join(strings.Fields(strings.Trim(string(data), "\"' \t\n")), "")
	plain = strings.TrimRight(plain, "=")
	plain = strings.ReplaceAll(strings.ReplaceAll(plain, "-", "+"), "_", "/")
	inside, err := base64.RawStdEncoding.DecodeString(plain)
	switch {
	case err != nil || len(inside) < 16: // a word may look like base64
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

// unescape undoes what JSON and environment files do to PEM: \n for line ends, and \/.
func unescape(data []byte) []byte {
	if !bytes.Contains(data, []byte(`\`)) {
		return data
	}
	data = newline.ReplaceAll(data, []byte("\n"))
	return bytes.ReplaceAll(data, []byte(`\/`), []byte("/"))
}

// isDER reports whether data may be DER or BER: a sequence whose length is that of the file, or
// is in the long or indefinite form, with which no text begins.
func isDER(data []byte) bool {
	switch {
	case len(data) < 3 || data[0] != 0x30:
		return false
	case data[1] >= 0x80:
		return true
	}
	end := 2 + int(data[1])
	return end <= len(data) && len(bytes.TrimRight(data[end:], "\r\n")) == 0 && bytes.IndexByte([]byte{2, 6, 0x30}, data[2]) >= 0
}

// indefinite reports BER's indefinite length, which DER forbids.
func indefinite(data []byte) bool { return data[1] == 0x80 }

// kinds recognizes DER by the first tags in its sequence; the first row that matches counts.
var kinds = []struct{ tags, kind string }{
	{"\x02\x30\x04", "PRIVATE KEY"}, // version, algorithm, key
	{"\x02\x30", "PKCS12"},          // version, safe, seal
	{"\x02\x02\x02", "RSA PRIVATE KEY"},
	{"\x02\x04", "EC PRIVATE KEY"},
	{"\x30\x04", "ENCRYPTED PRIVATE KEY"}, // algorithm, key
	{"\x30\x30\x03", "CERTIFICATE"},       // content, algorithm, signature
	{"\x30\x03", "PUBLIC KEY"},
	{"\x06", "PKCS7"},
}

func parseDER(data []byte) ([]Block, error) {
	whole := asn1.RawValue{FullBytes: data, Bytes: data[2:]}
	if _, err := asn1.Unmarshal(data, &whole); err != nil && !indefinite(data) {
		return nil, errors.New("is damaged or cut off: copy or export it again")
	}
	kind := kindOf(whole.Bytes)
	if _, err := x509.ParseCertificateRequest(whole.FullBytes); kind == "CERTIFICATE" && err == nil {
		kind = "CERTIFICATE REQUEST"
	}
	if kind == "" {
		return nil, ErrNeither
	}
	return []Block{{Block: pem.Block{Type: kind, Bytes: whole.FullBytes}}}, nil
}

// kindOf recognizes a sequence by its content; "" if unknown.
func kindOf(content []byte) string {
	var tags strings.Builder
	for len(content) > 0 && tags.Len() < 3 {
		var part asn1.RawValue
		tags.WriteByte(content[0])
		rest, err := asn1.Unmarshal(content, &part)
		if err != nil { // BER
			break
		}
		content = rest
	}
	for _, k := range kinds {
		if strings.HasPrefix(tags.String(), k.tags) {
			return k.kind
		}
	}
	return ""
}
