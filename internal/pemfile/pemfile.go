// Package pemfile takes files of certificates and keys apart as people have them: PEM,
// well formed or after a trip through editors, mails and environment variables, or
// DER. What cannot be read is told with its line; nothing is passed over in silence.
package pemfile

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Block is a PEM block, or the whole of a file that is not PEM under the type that
// PEM would give it (PKCS12 for a .p12).
type Block struct {
	pem.Block
	Line int // where it begins; 0 if the file is not PEM
}

// At is the block's place for people.
func (b *Block) At() string {
	if b.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" at line %d", b.Line)
}

// Convert is the openssl command that makes PEM of the block; its options are what the
// command needs beside the file.
func (b *Block) Convert(command, options string) string {
	if b.Line == 0 {
		command += " -inform DER"
	}
	if options != "" {
		options = " " + options
	}
	return "openssl " + command + " -in " + File + options + " -out new.pem"
}

// ErrNeither is for a file that is something else.
var ErrNeither = errors.New("is neither PEM nor DER")

// Parse returns what the file holds, in its order. Errors are sentences without a
// subject, which is the file, and quote nothing of it.
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

// Holds reports whether text, which should be the name of a file, is what belongs into
// one: it may be a private key.
func Holds(text string) bool {
	data := []byte(text)
	return marked(data) || unbase64(data) != nil
}

// File stands for the file's name in a sentence, and is replaced by InFile.
const File = "FILE"

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.+@][A-Za-z0-9_.+@-]*$`)

// InFile puts the name of the file, without its folder, into a sentence with a command.
func InFile(sentence, path string) string {
	name := filepath.Base(path)
	if !plainName.MatchString(name) {
		name = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return strings.ReplaceAll(sentence, File, name)
}

// mark is the line that begins or ends a block, which need not have the line for itself,
// nor its dashes as they should be: those of word processors are longer and fewer.
var mark = regexp.MustCompile(dash + ` *(BEGIN|END) ([A-Z0-9][A-Z0-9 .]{0,40}?) *` + dash)

const dash = `[-\x{2010}-\x{2015}\x{2212}]{2,5}`

// marked reports whether there is a mark at all; most of what has none is known quickly.
func marked(data []byte) bool {
	return (bytes.Contains(data, []byte("BEGIN ")) || bytes.Contains(data, []byte("END "))) && mark.Match(data)
}

var comment = regexp.MustCompile(`(?m)^[ \t]*#.*$`)

// parsePEM wants a block for each BEGIN and for each END; text beside them is passed over.
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

// wrong says what keeps a block from being decoded.
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

// decode puts a block into good order and decodes it. Of one that cannot be decoded it
// returns the first line that is at fault, counted from that of BEGIN; -1 if none is.
func decode(kind string, body []byte) (b *pem.Block, bad int) {
	var clean bytes.Buffer
	bad = -1
	first, _ := fmt.Fprintf(&clean, "-----BEGIN %s-----\n", kind)
	for i, line := range bytes.Split(body, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 && clean.Len() == first {
			continue // headers would not be seen after it
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
