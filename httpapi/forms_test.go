package httpapi

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"propeller/apnsconn/apnstest"
)

// serveTLS runs a server with TLS until the test ends, and returns its address.
func serveTLS(t *testing.T, h http.Handler) string {
	t.Helper()
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	file := filepath.Join(t.TempDir(), "c.pem")
	if err := os.WriteFile(file, apns.ClientCertPEM("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return serveWeb(t, Web{Listen: "127.0.0.1:0", TLSCert: file, TLSKey: file}, h)
}

// rawHTTP2 is a client of HTTP/2 that keeps to no custom.
type rawHTTP2 struct {
	t    *testing.T
	fr   *http2.Framer
	next uint32
	most uint32      // requests at once, as the server has said
	gone atomic.Bool // the connection has ended
}

// dialHTTP2 returns when the server has said what it allows.
func dialHTTP2(t *testing.T, addr string, settings ...http2.Setting) *rawHTTP2 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // its name is no host's
	if err != nil {
		t.Fatal(err)
	}
	c := &rawHTTP2{t: t, fr: http2.NewFramer(conn, conn), next: 1}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := c.fr.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	for c.most == 0 {
		f, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			c.most, _ = s.Value(http2.SettingMaxConcurrentStreams)
		}
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			if _, err := c.fr.ReadFrame(); err != nil {
				c.gone.Store(true)
				return
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-read
	})
	return c
}

// begin begins a request with a part of its body.
func (c *rawHTTP2) begin(path string, body []byte) {
	c.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", path}, {"content-type", "application/x-www-form-urlencoded"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	err := c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: block.Bytes(), EndHeaders: true})
	for len(body) > 0 && err == nil {
		n := min(len(body), 16<<10)
		err = c.fr.WriteData(c.next, false, body[:n])
		body = body[n:]
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.next += 2
}

// Strangers who begin very many large forms share what there is for them, and keep
// nobody from sending a form with a key.
func TestStrangersForms(t *testing.T) {
	t.Parallel()
	api := New(newTouchedTree(), Options{})
	api.Use(Settings{Keys: testKeys})
	addr := serveTLS(t, api.Network())
	part := []byte("title=" + strings.Repeat("x", 3<<10))
	share := int(api.forms.each / formCost / maxForm)
	for range share + 10 {
		dialHTTP2(t, addr).begin("/post", part)
	}
	waitFor(t, func() bool { return api.forms.takenBy("127.0.0.1") > api.forms.each }) // some wait
	client := newClient(t)
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // as above
	resp, err := client.PostForm("https://"+addr+"/post", url.Values{"auth_token": {"sender-0123"}, "topic": {topic}, "token": {goodToken}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("a form with a key: %s", resp.Status)
	}
	waitFor(t, func() bool { return api.forms.takenBy("127.0.0.1") == 0 }) // none stays
}

// A form of very many parameters, which take many times its size, is none.
func TestFewFields(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	g := newGuest(t, api.Network())
	r := httptest.NewRequest("POST", "/post", strings.NewReader(strings.Repeat("a&", maxFields+1)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if w := g.do(r); w.Code != 400 || !strings.Contains(w.Body.String(), errFields.Error()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A form to sign in is small; one of a stranger that is not is told so.
func TestSignInForm(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	g := newGuest(t, api.Network())
	if w := g.post("/login", "key", strings.Repeat("x", maxSignIn)); w.Code != 413 || !strings.Contains(w.Body.String(), "could not be read") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
