package config

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"propeller/apnsconn"
)

// loaded is what one reading of a configuration has found in files: each is read, decrypted and
// parsed once, however many apps share it, and they then share what was made of it. What no app
// holds goes when the reading ends.
type loaded struct {
	reads  results[string, struct{}]
	keys   results[keyFile, *apnsconn.Key]
	certs  results[certFiles, *apnsconn.Certificate]
	pools  results[string, roots]
	stamps results[string, string]
	paths  results[string, string]
	shared []given // the keys of a credential that apps have from defaults alone
}

// results is what a function has returned, by its argument.
type results[K comparable, V any] map[K]result[V]

type result[V any] struct {
	value V
	err   error
}

// of returns the result for key, which f makes if there is none yet.
func (r *results[K, V]) of(key K, f func() (V, error)) (V, error) {
	known, ok := (*r)[key]
	if !ok {
		if *r == nil {
			*r = results[K, V]{}
		}
		known.value, known.err = f()
		(*r)[key] = known
	}
	return known.value, known.err
}

type keyFile struct{ path, id, team string }

func (l *loaded) key(of keyFile, patience time.Duration) (*apnsconn.Key, error) {
	return l.keys.of(of, func() (*apnsconn.Key, error) {
		return inTime(patience, func() (*apnsconn.Key, error) { return apnsconn.LoadKey(of.path, of.id, of.team) })
	})
}

type certFiles struct{ cert, key, password string }

func (l *loaded) certificate(of certFiles, patience time.Duration) (*apnsconn.Certificate, error) {
	return l.certs.of(of, func() (*apnsconn.Certificate, error) {
		return inTime(patience, func() (*apnsconn.Certificate, error) {
			return apnsconn.LoadCertificate(of.cert, of.key, of.password)
		})
	})
}

// readable says why a file cannot be read; nil if it can.
func (l *loaded) readable(path string, patience time.Duration) error {
	_, err := l.reads.of(path, func() (struct{}, error) {
		_, err := inTime(patience, func() ([]byte, error) { return readFile(path, maxFile) })
		return struct{}{}, err
	})
	return err
}

// roots are those of the system and of a file.
type roots struct {
	pool *x509.CertPool
	hash [sha256.Size]byte // of the file
}

func (l *loaded) roots(path string) (roots, error) {
	return l.pools.of(path, func() (roots, error) {
		pool, err := x509.SystemCertPool()
		if err != nil {
			// A machine without roots of its own: those of the file must do.
			pool = x509.NewCertPool()
		}
		data, err := addRoots(pool, path)
		return roots{pool, sha256.Sum256(data)}, err
	})
}

// stamp is stampOf as it was before the file was first read.
func (l *loaded) stamp(path string) string {
	stamp, _ := l.stamps.of(path, func() (string, error) { return stampOf(path), nil })
	return stamp
}

// credentialTime is how long one credential may take to be read and decrypted. What
// a file may ask for takes some seconds; a disk may not answer at all.
const credentialTime = 30 * time.Second

// inTime does f, which reads files, and waits for it no longer than limit: other apps'
// credentials come next. What takes longer is left to end by itself.
func inTime[T any](limit time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		var none T
		return none, fmt.Errorf("takes longer than %s to read and decrypt: ask for fewer rounds of key derivation, or look at the disk", limit)
	}
}
