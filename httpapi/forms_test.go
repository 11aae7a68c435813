package httpapi

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
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
	t      *testing.T
	fr     *http2.Framer
	next   uint32
	most   uint32        // requests at once, as the server has said
	failed atomic.Uint32 // requests that were refused or cut
}

// dialHTTP2 returns when the server has said what it allows.
func dialHTTP2(t *testing.T, addr string) *rawHTTP2 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // its name is no host's
	if err != nil {
		t.Fatal(err)
	}
	c := &rawHTTP2{t: t, fr: http2.NewFramer(conn, conn), next: 1}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := c.fr.WriteSettings(); err != nil {
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
			f, err := c.fr.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.RSTStreamFrame); ok {
				c.failed.Add(1)
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

// Strangers who begin very many forms, over HTTP/2, fill no memory and keep nobody
// from sending one with a key.
func TestStrangersForms(t *testing.T) {
	t.Parallel()
	tree := newTouchedTree()
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	addr := serveTLS(t, api.Network())
	part := []byte("title=" + strings.Repeat("x", 3<<10))
	under := func() int {
		api.forms.mu.Lock()
		defer api.forms.mu.Unlock()
		return len(api.forms.all)
	}
	for i := range 2 * maxFormsFrom / maxRequests {
		c := dialHTTP2(t, addr)
		if c.most != maxRequests {
			t.Fatalf("%d requests at once are allowed", c.most)
		}
		for j := range maxRequests {
			c.begin([]string{"/post", "/login"}[j%2], part)
		}
		if i*maxRequests < maxFormsFrom {
			waitFor(t, func() bool { return under() == (i+1)*maxRequests })
			continue
		}
		c.begin("/post", nil) // one more than allowed
		waitFor(t, func() bool { return c.failed.Load() > 0 })
	}
	if n := under(); n > maxFormsFrom {
		t.Errorf("%d forms of one address at once", n)
	}
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
}

// The oldest form of an address with too many has to go, else the oldest of all.
func TestForms(t *testing.T) {
	t.Parallel()
	var f forms
	var stopped []string
	enter := func(from string, i int) *reading {
		one := &reading{from: from, stop: func() { stopped = append(stopped, fmt.Sprint(from, i)) }}
		f.enter(one)
		return one
	}
	var first *reading
	for i := range maxFormsFrom + 1 {
		if one := enter("a", i); i == 0 {
			first = one
		}
	}
	if len(stopped) != 1 || stopped[0] != "a0" || !f.leave(first) {
		t.Errorf("of one address too many: stopped %q", stopped)
	}
	for i := range maxForms - maxFormsFrom {
		enter(fmt.Sprint("b", i), 0)
	}
	last := enter("c", 0)
	if len(stopped) != 2 || stopped[1] != "a1" || f.leave(last) || len(f.all) != maxForms-1 {
		t.Errorf("too many: stopped %q, %d are left", stopped, len(f.all))
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
