package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"syscall"
	"testing"

	"propeller/apnsconn/apnstest"
)

// An app with a .p8 key, from a file and from flags.
func TestKey(t *testing.T) {
	s := newSite(t, apnstest.Options{ClientCert: apnstest.ClientCertNone})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.write("AuthKey_ABC123DEFG.p8", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	s.write("propeller.yaml", "apps: [{topic: "+topic+", key: AuthKey_ABC123DEFG.p8, key_id: ABC123DEFX, team_id: DEF123GHIJ}]\n")
	r := runProgram(t, s.dir, "", "check")
	if r.status != 0 || !strings.Contains(r.out, "  key ABC123DEFX team DEF123GHIJ  -\n") || !strings.Contains(r.out, "the file's name says ABC123DEFG") {
		t.Errorf("%+v", r)
	}

	d := startDaemon(t, s.dir, "run", "--topic", topic, "--server", s.apns.URL, "--ca-file", "ca.pem", "--queue", s.bs.URL(), "--log-pushes", "all",
		"--key", "AuthKey_ABC123DEFG.p8", "--key-id", "ABC123DEFG", "--team-id", "DEF123GHIJ")
	if r := runProgram(t, s.dir, "", "send", "--queue", s.bs.URL(), "--topic", topic, "--token", token(0), "--title", "x"); r.status != 0 {
		t.Fatalf("send: %+v", r)
	}
	until(t, "it is delivered", func() bool { return strings.Contains(d.log(), "class=delivered") })
	if a := s.apns.Requests()[0].Header.Get("authorization"); !strings.HasPrefix(a, "bearer ") || strings.Contains(d.log(), a[len(a)-40:]) {
		t.Error("no provider token, or it is in the log")
	}
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}
