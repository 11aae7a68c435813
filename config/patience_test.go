package config

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn"
)

// A credential that takes too long is its app's fault; the next app's is read.
func TestCredentialTakesTooLong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{}.make(t)
	write(t, dir, "good.p8", m.keyPEM(t))
	write(t, dir, "slow.pem", slowKey(t))
	o := Options{Dir: dir, Lenient: true, patience: 150 * time.Millisecond}
	cfg, err := Parse("x.yaml", []byte("apps:\n  - {topic: com.example.slow, cert: slow.pem, cert_password: x}\n  - {topic: com.example.good, key: good.p8, "+ids+"}\n"), o)
	if err != nil {
		t.Fatal(err)
	}
	if a := cfg.Apps[0]; !a.Broken() || !strings.Contains(a.Fault(), "takes longer than 150ms to read and decrypt") {
		t.Errorf("slow: %q", a.Fault())
	}
	if a := cfg.Apps[1]; a.Broken() {
		t.Errorf("good: %q", a.Fault())
	}
	// As long again, so that what was left behind has ended.
	_, _ = apnsconn.LoadCertificate(filepath.Join(dir, "slow.pem"), "", "x")
}

// slowKey is a key that takes seconds to decrypt.
func slowKey(t *testing.T) []byte {
	t.Helper()
	der := func(v any) []byte {
		out, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	type oid = asn1.ObjectIdentifier
	algorithm := func(id oid, params any) pkix.AlgorithmIdentifier {
		return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: der(params)}}
	}
	kdf := algorithm(oid{1, 2, 840, 113549, 1, 5, 12}, struct {
		Salt   []byte
		Rounds int
		PRF    pkix.AlgorithmIdentifier
	}{make([]byte, 8), 400_000, algorithm(oid{1, 2, 840, 113549, 2, 11}, asn1.NullRawValue)})
	key := struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}{algorithm(oid{1, 2, 840, 113549, 1, 5, 13}, []pkix.AlgorithmIdentifier{kdf, algorithm(oid{2, 16, 840, 1, 101, 3, 4, 1, 42}, make([]byte, 16))}), make([]byte, 64)}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der(key)})
}
