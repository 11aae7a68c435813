package apnstest_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
)

// A client of HTTP/1.1 is told that it has to speak HTTP/2, with TLS and without.
func TestHTTP1Client(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: srv.CertPool(), NextProtos: []string{"http/1.1"}}}
	defer tr.CloseIdleConnections()
	for _, url := range []string{srv.URL, "http://" + srv.Addr} {
		req, err := http.NewRequestWithContext(within(t), "POST", url+"/3/device/00", strings.NewReader(`{"aps":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusHTTPVersionNotSupported || !strings.Contains(string(text), "a client that speaks HTTP/2") {
			t.Errorf("%s: %d %q, %v", url, resp.StatusCode, text, err)
		}
	}
}
