package apnsconn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
)

// A certificate from a file, looked at before it is used.
func ExampleLoadCertificate() {
	srv := apnstest.NewServer(apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	defer srv.Close()
	file := tempFile("push.pem", srv.ClientCertPEM("com.example.app", apnstest.ForProduction()))
	defer os.Remove(file)

	cert, err := apnsconn.LoadCertificate(file, "", "") // key in the same file, not encrypted
	if err != nil {
		fmt.Println(err)
		return
	}
	for topic, env := range map[string]apnsconn.Environment{
		"com.example.app":   apnsconn.Production,
		"com.example.other": apnsconn.Production,
	} {
		_, err := cert.Check(topic, env, time.Now())
		fmt.Println(topic, "fits:", err == nil)
	}
	pair, err := cert.TLS()
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := apnsconn.Dial(context.Background(), apnsconn.Config{
		Addr: srv.Addr, RootCAs: srv.CertPool(), Certificate: &pair,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.Push(context.Background(), push("c0ffee00c0ffee00")).Class)
	// Unordered output:
	// com.example.app fits: true
	// com.example.other fits: false
	// delivered
}

// Provider tokens of a .p8 key: one ProviderToken for all connections.
func ExampleLoadKey() {
	srv := apnstest.NewServer(apnstest.Options{})
	defer srv.Close()
	file := tempFile("AuthKey_ABC123DEFG.p8", newKey())
	defer os.Remove(file)

	key, err := apnsconn.LoadKey(file, "ABC123DEFG", "DEF123GHIJ")
	if err != nil {
		fmt.Println(err)
		return
	}
	tokens := apnsconn.NewProviderToken(key)
	for range 2 {
		conn, err := apnsconn.Dial(context.Background(), apnsconn.Config{
			Addr: srv.Addr, RootCAs: srv.CertPool(), Token: tokens,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(conn.Push(context.Background(), push("c0ffee00c0ffee00")).Class)
		conn.Close()
	}
	fmt.Println(key, "made", tokens.Mints(), "token")
	// Output:
	// delivered
	// delivered
	// key ABC123DEFG team DEF123GHIJ made 1 token
}

// tempFile stands for a file that is there already.
func tempFile(name string, content []byte) string {
	f, err := os.CreateTemp("", "*-"+name)
	if err == nil {
		_, err = f.Write(content)
		if closed := f.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		panic(err)
	}
	return f.Name()
}

// newKey makes a key in the form in which Apple gives them out.
func newKey() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
