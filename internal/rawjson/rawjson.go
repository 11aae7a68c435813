// Package rawjson cuts JSON into its values, each as it was written. It checks the
// whole text by jsontext and copies nothing: what it hands out is a part of the text. A
// byte order mark in front of the text counts as a blank.
package rawjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth bounds how deep objects and lists may be nested: as deep as Apple's own
// parser goes. The stack that reading a value takes grows with its depth.
const MaxDepth = 512

var (
	// ErrDepth: the text is nested more than MaxDepth deep. It may be JSON or not.
	ErrDepth = fmt.Errorf("nested more than %d deep", MaxDepth)
	// ErrKind: the text is JSON, but not of the kind that was asked for.
	ErrKind = errors.New("another kind of value")
)

// SyntaxError says where a text is no JSON, and why.
type SyntaxError struct {
	Offset int64 // in bytes
	Why    error // tells at most a few characters of the text
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("byte %d: %v", e.Offset, e.Why) }

func (e *SyntaxError) Unwrap() error { return e.Why }

// Members calls f with the name, quoted as it was written, and the value of each member
// of the object that text is, until f returns an error. A name may come twice. f's error
// is returned only if all of the text is JSON.
func Members(text []byte, f func(name, value []byte) error) error {
	return walk(text, '{', func(r *reader) (fault error, err error) {
		name, err := r.dec.ReadValue()
		if err != nil {
			return nil, err
		}
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		if r.told {
			return nil, nil
		}
		return f(name, value), nil
	})
}

// Elements is Members for the elements of a list. at is where in text the element's
// value begins.
func Elements(text []byte, f func(at int, value []byte) error) error {
	return walk(text, '[', func(r *reader) (fault error, err error) {
		value, err := r.value()
		if err != nil || r.told {
			return nil, err
		}
		return f(r.mark+int(r.dec.InputOffset())-len(value), value), nil
	})
}

// Begin is the byte that a text begins with, after blanks: '{' of an object; 0 of a text
// without any.
func Begin(text []byte) byte {
	text = bytes.TrimLeft(bytes.TrimPrefix(text, []byte(mark)), " \t\r\n")
	if len(text) == 0 {
		return 0
	}
	return text[0]
}

// Valid says whether text is one JSON value, nested no deeper than MaxDepth.
func Valid(text []byte) bool {
	r := open(text)
	defer r.close()
	_, err := r.value()
	return err == nil && r.end() == nil
}

// walk calls next for each element or member of the container that text is and that
// begins with open.
func walk(text []byte, kind jsontext.Kind, next func(r *reader) (fault, err error)) error {
	r := open(text)
	defer r.close()
	if r.dec.PeekKind() != kind {
		if _, err := r.value(); err != nil {
			return syntax(err)
		}
		if err := r.end(); err != nil {
			return err
		}
		return ErrKind
	}
	var told error
	_, err := r.dec.ReadToken()
	for err == nil {
		if k := r.dec.PeekKind(); k == '}' || k == ']' {
			break
		}
		var fault error
		if fault, err = next(r); fault != nil {
			told, r.told = fault, true
		}
	}
	if err == nil {
		_, err = r.dec.ReadToken()
	}
	if err != nil {
		return syntax(err)
	}
	if err := r.end(); err != nil {
		return err
	}
	return told
}

// reader is a decoder that is used again and again: a new one takes much memory.
type reader struct {
	dec  jsontext.Decoder
	in   bytes.Buffer // of which the decoder hands out parts, without a copy
	text []byte
	deep bool // the text may be nested more than MaxDepth deep
	told bool // f has returned an error
	mark int  // bytes of the mark in front of the text
}

// mark is a byte order mark, which some programs write in front of UTF-8.
const mark = "\ufeff"

var readers = sync.Pool{New: func() any { return new(reader) }}

func open(text []byte) *reader {
	r := readers.Get().(*reader)
	r.text, r.told = bytes.TrimPrefix(text, []byte(mark)), false
	r.mark, r.in = len(text)-len(r.text), *bytes.NewBuffer(r.text)
	r.deep = bytes.Count(text, []byte{'['})+bytes.Count(text, []byte{'{'}) > MaxDepth
	r.dec.Reset(&r.in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return r
}

func (r *reader) close() {
	r.forget()
	readers.Put(r)
}

// forget drops the text, which may be large.
func (r *reader) forget() {
	r.text, r.in = nil, bytes.Buffer{}
	r.dec.Reset(&r.in)
}

// value reads the next value. The decoder calls itself for each level of it, which is
// why one that may be too deep is read token by token.
func (r *reader) value() ([]byte, error) {
	if !r.deep {
		return r.dec.ReadValue()
	}
	switch r.dec.PeekKind() {
	case '{', '[':
	default:
		return r.dec.ReadValue()
	}
	from, outer := r.dec.InputOffset(), r.dec.StackDepth()
	for {
		if _, err := r.dec.ReadToken(); err != nil {
			return nil, err
		}
		switch depth := r.dec.StackDepth(); {
		case depth > MaxDepth:
			return nil, ErrDepth
		case depth == outer:
			return bytes.TrimLeft(r.text[from:r.dec.InputOffset()], " \t\r\n,:"), nil
		}
	}
}

// end says what keeps the text from having ended.
func (r *reader) end() error {
	switch _, err := r.dec.ReadToken(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return syntax(err)
	}
	return &SyntaxError{r.dec.InputOffset(), errors.New("more after the value")}
}

// syntax drops from jsontext's error what it tells of the names around the place: they
// are the producer's, and of any length.
func syntax(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return &SyntaxError{e.ByteOffset, e.Err}
	}
	if err == io.EOF {
		return &SyntaxError{0, io.ErrUnexpectedEOF}
	}
	return err
}
