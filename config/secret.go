package config

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
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

// SecretURL is a URL that may hold a secret: in user and password, or, as with
// webhooks, in its path or query. The zero value is none. What is secret cannot
// be printed by accident: fmt with any verb, JSON, YAML, text encoders and slog
// all show https://[secret]@host:port/…. Only URL and Reveal give it away.
//
// The URL stands behind a pointer of an unexported field for the reason that
// Secret's text does.
type SecretURL struct{ url *url.URL }

// URL returns the whole URL, nil for none. It must not be written to.
func (s SecretURL) URL() *url.URL { return s.url }

// Reveal returns the whole URL as text, "" for none.
func (s SecretURL) Reveal() string {
	if s.url == nil {
		return ""
	}
	return s.url.String()
}

// IsZero reports whether there is no URL.
func (s SecretURL) IsZero() bool { return s.url == nil }

// String returns scheme and host, with marks where there is more; "" for none.
func (s SecretURL) String() string {
	if s.url == nil {
		return ""
	}
	text := s.url.Scheme + "://"
	if s.url.User != nil {
		text += redacted + "@"
	}
	text += s.url.Host
	if s.url.Path != "" && s.url.Path != "/" || s.url.RawQuery != "" {
		text += "/…"
	}
	return text
}

// Format prints String whatever the verb and flags.
func (s SecretURL) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	io.WriteString(f, s.String())
}

// MarshalText returns String; JSON, YAML and XML encoders use it.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns String for slog.
func (s SecretURL) LogValue() slog.Value { return slog.StringValue(s.String()) }
