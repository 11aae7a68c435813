package config

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every secret looks like.
const redacted = "[secret]"

// Secret is a string that cannot be printed by accident: fmt with any verb,
// JSON, YAML, text encoders and slog all show "[secret]", and "" when it is
// empty. Only Reveal gives it away. The zero value is the empty secret.
//
// The text stands behind a pointer because fmt does not call methods on
// unexported fields: a Secret inside somebody's unexported field shows an
// address, not the text. So == does not compare secrets; Reveal does.
type Secret struct{ text *string }

// NewSecret makes a Secret of s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{text: &s}
}

// Reveal returns the text. Its callers are easy to find, and few.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == nil }

// String returns "[secret]", or "" for the empty secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// Format prints String whatever the verb and flags, so that %x, %d and %#v do
// not get past it.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	io.WriteString(f, s.String())
}

// MarshalText returns String; JSON, YAML and XML encoders use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns String for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
