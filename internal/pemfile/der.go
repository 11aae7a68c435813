package pemfile

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"strings"
)

// isDER reports whether data may be DER or BER: a sequence whose length is long or
// indefinite, which no text begins with, or that of the file.
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

// indefinite is BER that DER forbids: a length that is known at the end only.
func indefinite(data []byte) bool { return data[1] == 0x80 }

// kinds tells what DER is by the first tags in its sequence; the first that fits counts.
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

// kindOf tells what a sequence is by its content; "" for what is not known.
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
