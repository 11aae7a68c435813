package apnsconn

import (
	"fmt"
	"slices"
	"strings"

	"propeller/internal/pemfile"
)

const getP8 = "give the .p8 file that Apple offers under Keys"

// kinds says what a file may hold that is of no use where it was given, and what to do
// instead. The first that the file holds counts.
var kinds = []struct{ block, what, asCert, asKey string }{
	{"CERTIFICATE REQUEST", "a certificate signing request", upload, getP8},
	{"NEW CERTIFICATE REQUEST", "a certificate signing request", upload, getP8},
	{"PKCS7", "PKCS#7", convertPKCS7, getP8},
	{"CMS", "PKCS#7", convertPKCS7, getP8},
	{"PKCS12", "a certificate with its key in PKCS#12", "", asCert},
	{"CERTIFICATE", "a certificate", "", asCert},
	{"PUBLIC KEY", "a public key", giveCert, getP8},
	{"RSA PUBLIC KEY", "a public key", giveCert, getP8},
	{"X509 CRL", "a list of revoked certificates", giveCert, getP8},
	{"OPENSSH PRIVATE KEY", "an SSH key", giveCert, getP8},
}

const (
	upload       = "but no certificate: upload it in Apple's developer account, and give the certificate that Apple makes from it"
	convertPKCS7 = "which has certificates but no private key: convert it with: COMMAND, and give new.pem as cert and the file of the private key as cert_key"
	giveCert     = "but no certificate: give the app's certificate and its private key"
	asCert       = "give it as cert instead of key, or " + getP8
)

const giveCertToo = "give the certificate that belongs to it as cert, and this file as cert_key; if it is Apple's .p8 file, give it as key, with key_id and team_id"

// uselessCert is what a file without certificates is, and what to do.
func uselessCert(b *bundle) string {
	for _, k := range kinds {
		for i := range b.other {
			if o := &b.other[i]; o.Type == k.block && k.asCert != "" {
				return "holds " + k.what + ", " + strings.Replace(k.asCert, "COMMAND", o.Convert("pkcs7", "-print_certs"), 1)
			}
		}
	}
	if len(b.keys) > 0 {
		return "holds no certificate, only a private key: " + giveCertToo
	}
	return "holds no certificate" + onlyTypes(b.other) + ": give the app's certificate and its private key"
}

// uselessKey is what a file is instead of a key for provider tokens; "" for nothing. What
// stands beside a private key matters only if the key belongs to it.
func uselessKey(blocks []pemfile.Block) string {
	private := slices.ContainsFunc(blocks, func(b pemfile.Block) bool {
		return strings.HasSuffix(b.Type, "PRIVATE KEY") && b.Type != "OPENSSH PRIVATE KEY"
	})
	for _, k := range kinds {
		if private && k.asKey == getP8 {
			continue
		}
		if slices.ContainsFunc(blocks, func(b pemfile.Block) bool { return b.Type == k.block }) {
			return "holds " + k.what + ", not a key for provider tokens: " + k.asKey
		}
	}
	return ""
}

// onlyTypes ends a sentence with what the file says it holds, which may be anything.
func onlyTypes(blocks []pemfile.Block) string {
	if len(blocks) == 0 {
		return ""
	}
	return fmt.Sprintf(", only %.40q", blocks[0].Type)
}
