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
type Secret struct {
	text  *string
	shown string // instead of it
}

// NewSecret makes a Secret of s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&s, redacted}
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

// String returns the redacted form, which may be shown; "" for the empty secret.
func (s Secret) String() string { return s.shown }

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
// webhooks, in its path or query. The zero value is none. As with Secret, nothing
// prints more of it than https://[secret]@host:port/….
type SecretURL struct{ Secret }

// newSecretURL shows scheme and host, with marks where there is more.
func newSecretURL(u *url.URL) SecretURL {
	shown := u.Scheme + "://"
	if u.User != nil {
		shown += redacted + "@"
	}
	shown += u.Host
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		shown += "/…"
	}
	text := u.String()
	return SecretURL{Secret{&text, shown}}
}

// URL returns the whole URL, nil for none.
func (s SecretURL) URL() *url.URL {
	if s.IsZero() {
		return nil
	}
	u, err := url.Parse(s.Reveal())
	if err != nil { // it was made of a URL
		return nil
	}
	return u
}
