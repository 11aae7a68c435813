package apnsconn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"

	"propeller/internal/pemfile"
)

// Key signs provider tokens: the .p8 file that Apple offers under Keys, with the two ids that
// belong to it. It does not change once loaded. Printed in any way, it shows only the ids, never
// the key.
type Key struct {
	File        string            // where it was read from
	ID          string            // the key's id, 10 characters
	Team        string            // the team's id, 10 characters
	Fingerprint [sha256.Size]byte // SHA-256 of the public key: it differs for each key

	der *[]byte // PKCS#8; a pointer for the reason that certificateDER has
}

// KeyError says what is wrong with a provider token's key, or with one of its ids. It never
// holds any part of the key.
type KeyError struct {
	File  string // as given to LoadKey
	Field string // which argument is at fault: "key" (the file), "key_id" or "team_id"
	Why   string // what is wrong, and what to do if that is known
	Err   error  // the cause, such as fs.ErrNotExist; nil for none
}

func (e *KeyError) Error() string {
	what := ""
	if e.Field != "key" {
		what = strings.ReplaceAll(e.Field, "_", " ") + " "
	}
	return fmt.Sprintf("apnsconn: key %q: %s%s", e.File, what, e.Why)
}

// Unwrap returns the cause, or nil.
func (e *KeyError) Unwrap() error { return e.Err }

// LoadKey reads a key for provider tokens: an unencrypted file of at most 1 MiB with one EC key
// on curve P-256, such as Apple's AuthKey_….p8. keyID and teamID are the ids that Apple shows
// beside the key and for the account, each 10 capital letters and digits. Only Apple knows
// whether they belong to the key. All faults are reported together, joined by errors.Join; each
// is a *KeyError.
func LoadKey(file, keyID, teamID string) (*Key, error) {
	private, err := readSigningKey(file)
	var faults []error
	if err != nil {
		faults = append(faults, &KeyError{file, "key", pemfile.InFile(err.Error(), file), errors.Unwrap(err)})
	}
	if !isAppleID(keyID) {
		faults = append(faults, &KeyError{file, "key_id", idFault(keyID) + ": Apple shows it beside the key, and it is in the file's name, AuthKey_<key id>.p8", nil})
	}
	if !isAppleID(teamID) {
		faults = append(faults, &KeyError{file, "team_id", idFault(teamID) + ": Apple shows it on the account's membership page", nil})
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return newKey(file, keyID, teamID, private)
}

func newKey(file, keyID, teamID string, private *ecdsa.PrivateKey) (*Key, error) {
	public, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, &KeyError{file, "key", "its public key cannot be encoded", err}
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, &KeyError{file, "key", "cannot be encoded", err}
	}
	return &Key{File: file, ID: keyID, Team: teamID, Fingerprint: sha256.Sum256(public), der: &der}, nil
}

// private parses the key, which takes far less time than the signature that it is for.
func (k *Key) private() (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(*k.der)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T makes no provider tokens", key)
	}
	return private, nil
}

// appleIDLen is the length of a key id and of a team id (Apple:
// establishing-a-token-based-connection-to-apns).
const appleIDLen = 10

func isAppleID(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(s) == appleIDLen
}

func idFault(s string) string {
	if s == "" {
		return "is missing"
	}
	return "is not 10 capital letters and digits"
}

// readSigningKey finds the only private key in a file. Its errors are sentences whose subject,
// the file, is left out.
func readSigningKey(file string) (*ecdsa.PrivateKey, error) {
	blocks, err := readCredential(file, "is neither PEM nor DER: give the .p8 file as Apple offers it, whose first line is -----BEGIN PRIVATE KEY-----")
	if err != nil {
		return nil, err
	}
	return parseSigningKey(blocks)
}

func parseSigningKey(blocks []pemfile.Block) (*ecdsa.PrivateKey, error) {
	if what := uselessKey(blocks); what != "" {
		return nil, errors.New(what)
	}
	var key *pemfile.Block
	for i := range blocks {
		switch b := &blocks[i]; {
		case !strings.HasSuffix(b.Type, "PRIVATE KEY"):
		case key != nil:
			return nil, errors.New("holds several private keys: give a file with one")
		default:
			key = b
		}
	}
	if key == nil {
		return nil, errors.New("holds no private key" + onlyTypes(blocks) + ": " + getP8)
	}
	return parseSigningBlock(key)
}

func parseSigningBlock(block *pemfile.Block) (*ecdsa.PrivateKey, error) {
	//lint:ignore SA1019 see decryptKey
	if block.Type == "ENCRYPTED PRIVATE KEY" || x509.IsEncryptedPEMBlock(&block.Block) {
		return nil, errors.New("is encrypted, which Apple's .p8 files are not: decrypt it with: " + convertKey(block, "") + ", and give new.pem as key")
	}
	key, err := parseKey(block, "", nil)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("is an EC key on curve %s, and provider tokens need one on P-256: %s", key.Params().Name, getP8)
		}
		return key, nil
	case *rsa.PrivateKey:
		return nil, errors.New("is an RSA key, which belongs to a certificate: " + getP8)
	}
	return nil, errors.New("is neither an EC nor an RSA key: " + getP8)
}

// Same reports whether both are the same key with the same ids, no matter where they were read
// from. Either may be nil.
func (k *Key) Same(other *Key) bool {
	if k == nil || other == nil {
		return k == other
	}
	return k.ID == other.ID && k.Team == other.Team && k.Fingerprint == other.Fingerprint
}

// String is the ids for people: "key ABC123DEFG team DEF123GHIJ".
func (k Key) String() string { return fmt.Sprintf("key %s team %s", k.ID, k.Team) }

// Format prints String for every verb, since the fields hold the private key.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// MarshalText keeps the private key out of JSON and of log/slog.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
