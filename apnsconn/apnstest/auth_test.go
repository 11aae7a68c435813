package apnstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

// greet goes through TLS and SETTINGS with cert. It returns what kept it from
// getting that far. In TLS 1.3 a refused certificate shows in the first read.
func greet(t *testing.T, srv *apnstest.Server, certs ...tls.Certificate) (*client, error) {
	t.Helper()
	c, err := dialRaw(t, srv, certs...)
	if err != nil {
		return nil, err
	}
	c.hello()
	_, err = c.read()
	return c, err
}

func TestClientCertModes(t *testing.T) {
	t.Parallel()
	modes := map[apnstest.ClientCertMode]string{
		apnstest.ClientCertOptional: "optional", apnstest.ClientCertRequired: "required", apnstest.ClientCertNone: "none",
	}
	tests := []struct {
		name   string
		cert   func(*apnstest.Server) []tls.Certificate
		alert  string // of mode required
		reason string // of mode optional
	}{
		{"ours", func(s *apnstest.Server) []tls.Certificate { return []tls.Certificate{s.ClientCert(topic)} }, "", ""},
		{"none", func(*apnstest.Server) []tls.Certificate { return nil }, "certificate required", "MissingProviderToken"},
		{"self-signed", func(s *apnstest.Server) []tls.Certificate {
			return []tls.Certificate{s.ClientCert(topic, apnstest.SelfSigned())}
		}, "certificate required", ""},
		{"other authority", func(s *apnstest.Server) []tls.Certificate {
			return []tls.Certificate{s.ClientCert(topic, apnstest.OtherAuthority())}
		}, "unknown certificate authority", ""},
		{"expired", func(s *apnstest.Server) []tls.Certificate {
			return []tls.Certificate{s.ClientCert(topic, apnstest.ValidUntil(time.Now().Add(-time.Hour)))}
		}, "expired certificate", ""},
	}
	for mode, name := range modes {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				srv := newServer(t, apnstest.Options{ClientCert: mode})
				c, err := greet(t, srv, tt.cert(srv)...)
				alert, reason := "", tt.reason
				switch mode {
				case apnstest.ClientCertRequired:
					alert = tt.alert
				case apnstest.ClientCertNone:
					reason = "MissingProviderToken"
				}
				if alert != "" {
					if err == nil || !strings.Contains(err.Error(), alert) {
						t.Fatalf("error %v, want the alert %q", err, alert)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				c.push(1)
				if got := c.response(1); !strings.Contains(got.body, reason) || (reason == "") != (got.status == "200") {
					t.Errorf("answer %s %s, want %q", got.status, got.body, reason)
				}
			})
		}
	}
}

func TestRefusedCertificates(t *testing.T) {
	t.Parallel()
	only := func(o ...apnstest.CertOption) func(*apnstest.Server) tls.Certificate {
		return func(s *apnstest.Server) tls.Certificate { return s.ClientCert(topic, o...) }
	}
	refuse := func(*x509.Certificate) string { return "BadCertificate" }
	kinds := apnstest.ForTopics([2]string{topic, "app"}, [2]string{topic + ".voip", "voip"})
	tests := []struct {
		name   string
		opt    apnstest.Options
		cert   func(*apnstest.Server) tls.Certificate
		with   []string
		reason string
	}{
		{"refused", apnstest.Options{RefuseCert: refuse}, only(), nil, "BadCertificate"},
		{"sandbox at production", apnstest.Options{Environment: "production"}, only(apnstest.ForSandbox()), nil, "BadCertificateEnvironment"},
		{"production at sandbox", apnstest.Options{Environment: "sandbox"}, only(apnstest.ForProduction()), nil, "BadCertificateEnvironment"},
		{"both at sandbox", apnstest.Options{Environment: "sandbox"}, only(apnstest.ForProduction(), apnstest.ForSandbox()), nil, ""},
		{"no extension at production", apnstest.Options{Environment: "production"}, only(), nil, ""},
		{"listed topic", apnstest.Options{}, only(kinds), []string{"apns-topic", topic + ".voip", "apns-push-type", "voip"}, ""},
		{"topic not listed", apnstest.Options{}, only(kinds), []string{"apns-topic", topic + ".complication", "apns-push-type", "complication"}, "TopicDisallowed"},
		{"many topics, none named", apnstest.Options{}, only(kinds), []string{"apns-topic", ""}, "MissingTopic"},
		{"home-made", apnstest.Options{}, only(apnstest.WithoutUID()), []string{"apns-topic", "com.example.any"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, tt.opt)
			c, err := greet(t, srv, tt.cert(srv))
			if err != nil {
				t.Fatal(err)
			}
			c.push(1, tt.with...)
			if got := c.response(1); !strings.Contains(got.body, tt.reason) || (tt.reason == "") != (got.status == "200") {
				t.Errorf("answer %s %s, want %q", got.status, got.body, tt.reason)
			}
		})
	}
}

func TestRefuseHandshake(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{
				RefuseHandshake: func(*x509.Certificate) error { return errors.New("revoked") },
				TLSConfig:       func(cfg *tls.Config) { cfg.MaxVersion = version },
			})
			_, err := greet(t, srv, srv.ClientCert(topic))
			if err == nil || !strings.Contains(err.Error(), "bad certificate") {
				t.Errorf("error %v, want the alert bad certificate", err)
			}
			if _, err := greet(t, srv); err != nil {
				t.Errorf("without certificate: %v", err)
			}
		})
	}
}

// jwt makes a provider token whose signature has the right size only.
func jwt(kid, iss, iat string) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(fmt.Sprintf(`{"alg":"ES256","kid":%q}`, kid)) + "." +
		part(fmt.Sprintf(`{"iss":%q,"iat":%s}`, iss, iat)) + "." + part(strings.Repeat("s", 64))
}

func TestProviderTokens(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }
	now := at(0)
	const key, team = "ABC123DEFG", "DEF123GHIJ"
	good := "bearer " + jwt(key, team, now)
	tests := []struct {
		name   string
		opt    apnstest.Options
		auth   []string // of the pushes, in order; the last one's reason counts
		reason string
	}{
		{"good", apnstest.Options{}, []string{good}, ""},
		{"capital Bearer", apnstest.Options{}, []string{"B" + good[1:]}, ""},
		{"other scheme", apnstest.Options{}, []string{"basic abc"}, "MissingProviderToken"},
		{"garbage", apnstest.Options{}, []string{"bearer abc"}, "InvalidProviderToken"},
		{"iat a float", apnstest.Options{}, []string{"bearer " + jwt(key, team, now+".5")}, "InvalidProviderToken"},
		{"iat a string", apnstest.Options{}, []string{"bearer " + jwt(key, team, `"`+now+`"`)}, "InvalidProviderToken"},
		{"short key id", apnstest.Options{}, []string{"bearer " + jwt("ABC", team, now)}, "InvalidProviderToken"},
		{"from the future", apnstest.Options{}, []string{"bearer " + jwt(key, team, at(time.Hour))}, "InvalidProviderToken"},
		{"expired", apnstest.Options{}, []string{"bearer " + jwt(key, team, at(-61*time.Minute))}, "ExpiredProviderToken"},
		{"renewed", apnstest.Options{}, []string{good, "bearer " + jwt(key, team, at(-time.Minute))}, ""},
		{"renewed too soon", apnstest.Options{MinTokenAge: time.Hour}, []string{good, "bearer " + jwt(key, team, at(-time.Minute))}, "TooManyProviderTokenUpdates"},
		{"old one again", apnstest.Options{MinTokenAge: time.Hour}, []string{good, "bearer " + jwt(key, team, at(-time.Minute)), good}, ""},
		{"another key", apnstest.Options{}, []string{good, "bearer " + jwt("ZZZ123DEFG", team, now)}, "UnrelatedKeyIdInToken"},
		{"another team", apnstest.Options{}, []string{good, "bearer " + jwt(key, "ZZZ123GHIJ", now)}, "InvalidProviderToken"},
		{"refused", apnstest.Options{VerifyToken: func(string) string { return "BadEnvironmentKeyInToken" }}, []string{good}, "BadEnvironmentKeyInToken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, tt.opt)
			c, err := greet(t, srv)
			if err != nil {
				t.Fatal(err)
			}
			var got response
			for i, auth := range tt.auth {
				c.push(uint32(2*i+1), "authorization", auth)
				got = c.response(uint32(2*i + 1))
			}
			if !strings.Contains(got.body, tt.reason) || (tt.reason == "") != (got.status == "200") {
				t.Errorf("answer %s %s, want %q", got.status, got.body, tt.reason)
			}
		})
	}
}

// TestClientCertPEM: what is written for clients that read files is what they
// can read.
func TestClientCertPEM(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	pemFile := srv.ClientCertPEM(topic, apnstest.ForProduction())
	cert, err := tls.X509KeyPair(pemFile, pemFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(srv, cert.Leaf); err != nil {
		t.Error(err)
	}
	if block, _ := pem.Decode(srv.CACertPEM()); block == nil || block.Type != "CERTIFICATE" {
		t.Error("CACertPEM holds no certificate")
	}
	if _, err := greet(t, srv, cert); err != nil {
		t.Error(err)
	}
	if got := onlyConn(t, srv).ClientCert(); got == nil || got.Subject.CommonName != "Apple Push Services: "+topic {
		t.Errorf("client certificate seen: %v", got)
	}
}

// TestOwnTLSCert: a certificate from elsewhere is served and trusted.
func TestOwnTLSCert(t *testing.T) {
	t.Parallel()
	other := newServer(t, apnstest.Options{})
	cert := other.ClientCert(topic, apnstest.SelfSigned())
	srv := newServer(t, apnstest.Options{TLSCert: &cert})
	conn, err := tls.Dial("tcp", srv.Addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(cert.Leaf) {
		t.Errorf("served %v", got.Subject)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: srv.CertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
}

// TestHosts: the server's certificate covers the names asked for.
func TestHosts(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Hosts: []string{"apns-sim", "192.0.2.7"}})
	for _, name := range []string{"apns-sim", "192.0.2.7", "localhost", "127.0.0.1"} {
		conn, err := tls.Dial("tcp", srv.Addr, &tls.Config{RootCAs: srv.CertPool(), ServerName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
}
