package jetstream

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"propeller/internal/files"
)

// maxFile bounds what is read of a file of roots, of credentials or of the folder's
// own, in bytes.
const maxFile = 1 << 20

// readFile reads a file that may have become something else: a pipe would keep
// whoever connects again from doing so for ever.
func readFile(path string) ([]byte, error) {
	text, err := files.Read(path, maxFile)
	if _, ok := errors.AsType[*fs.PathError](err); err != nil && !ok {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, err
}

// credentials are those of a file as it is when a connection is made.
func credentials(file string) nats.Option {
	token := func() (string, error) {
		text, err := readFile(file)
		if err != nil {
			return "", err
		}
		defer clear(text)
		return nkeys.ParseDecoratedJWT(text)
	}
	return nats.UserJWT(token, signer(file))
}

// nkey is that of a file as it is when a connection is made.
func nkey(file string) (nats.Option, error) {
	key, err := readKey(file)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return nats.Nkey(public, signer(file)), nil
}

// signer signs with the key in a file.
func signer(file string) func(nonce []byte) ([]byte, error) {
	return func(nonce []byte) ([]byte, error) {
		key, err := readKey(file)
		if err != nil {
			return nil, err
		}
		defer key.Wipe()
		return key.Sign(nonce)
	}
}

func readKey(file string) (nkeys.KeyPair, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := nkeys.ParseDecoratedNKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: has no key to sign with: %w", file, err)
	}
	return key, nil
}
