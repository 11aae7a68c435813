package apnsconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

const toolHint = "make test-tools installs it"

// startNghttpd starts nghttp2's server. It answers a POST with the file of that
// path, and asks for a client certificate without looking at it.
func startNghttpd(t *testing.T, m manner) interopServer {
	dir := t.TempDir()
	cert, pool := selfSigned(t)
	client, _ := selfSigned(t)
	certPEM, keyPEM := pemOf(t, cert)
	writeFile(t, filepath.Join(dir, "cert.pem"), certPEM)
	writeFile(t, filepath.Join(dir, "key.pem"), keyPEM)
	writeFile(t, filepath.Join(dir, "htdocs", "/3/device/", testToken[:60]+"0000"), nil)
	args := []string{
		"--address=127.0.0.1", "--workers=1", "--verify-client", "--htdocs=" + filepath.Join(dir, "htdocs"),
		fmt.Sprintf("--max-concurrent-streams=%d", m.maxStreams),
	}
	if m.window > 0 {
		bits := fmt.Sprint(max(1, len(strconv.FormatInt(int64(m.window), 2)))) // 2^bits-1 bytes
		args = append(args, "--window-bits="+bits, "--connection-window-bits="+bits)
	}
	if m.small {
		args = append(args, "--padding=200", "--header-table-size=0", "--encoder-header-table-size=0")
	}
	// It does not tell which port it got when it asks for any. Between the choice
	// of a port and its use somebody else may take it.
	const tries = 5
	for try := 1; ; try++ {
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		p := startTool(t, "nghttpd", append(args, port, filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem"))...)
		if p.listens(within(t), addr) {
			return interopServer{addr: addr, roots: pool, cert: &client}
		}
		p.stop()
		if try == tries {
			t.Fatalf("nghttpd does not listen on %s: %s", addr, p.said.String())
		}
	}
}

// startNode starts testdata/interop/apns.js.
func startNode(t *testing.T, m manner) interopServer {
	cert, pool := selfSigned(t)
	client, _ := selfSigned(t)
	certPEM, keyPEM := pemOf(t, cert)
	ca, _ := pemOf(t, client)
	settings := map[string]any{"maxConcurrentStreams": m.maxStreams}
	o := map[string]any{"key": string(keyPEM), "cert": string(certPEM), "ca": string(ca), "settings": settings}
	if m.window > 0 {
		settings["initialWindowSize"] = m.window
		o["window"] = max(m.window, 1000) // of the connection; Node renews no smaller one
	}
	if m.small {
		settings["headerTableSize"] = 0
		o["pieces"] = 1
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	p := startTool(t, "node", filepath.Join("testdata", "interop", "apns.js"), string(text))
	port := p.line(t)
	return interopServer{
		addr: "127.0.0.1:" + port, roots: pool, cert: &client,
		echoes: true, rejects: true, resets: true, goesAway: true, wantCert: true,
	}
}

// startNetHTTP starts Go's own server.
func startNetHTTP(t *testing.T, m manner) interopServer {
	client, clients := selfSigned(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(answerInterop))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: int(m.maxStreams)}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if m.window > 0 {
		s.Config.HTTP2.MaxReceiveBufferPerStream = m.window
		s.Config.HTTP2.MaxReceiveBufferPerConnection = 64 << 10 // it takes no less
	}
	if m.small {
		s.Config.HTTP2.MaxDecoderHeaderTableSize = 1
		s.Config.HTTP2.MaxEncoderHeaderTableSize = 1
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return interopServer{
		addr: s.Listener.Addr().String(), roots: pool, cert: &client,
		echoes: true, rejects: true, wantCert: true,
	}
}

func answerInterop(w http.ResponseWriter, r *http.Request) {
	payload, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("apns-id", r.Header.Get("apns-id"))
	reject := func(status int, body string) {
		w.WriteHeader(status)
		for i := range len(body) {
			io.WriteString(w, body[i:i+1])
			w.(http.Flusher).Flush() // a frame each
		}
	}
	switch token := strings.TrimPrefix(r.URL.Path, "/3/device/"); {
	case strings.HasSuffix(token, "dead"):
		reject(410, `{"reason":"Unregistered","timestamp":1700000000000}`)
	case strings.HasSuffix(token, "0103"):
		w.WriteHeader(103)
		w.Header().Set("Trailer", "x-trailer")
		reject(400, `{"reason":"BadTopic"}`)
		w.Header().Set("x-trailer", "end")
	case !saysItsLength(payload) || r.Method != http.MethodPost || r.Header.Get("apns-topic") == "":
		reject(400, `{"reason":"PayloadEmpty"}`)
	}
}

func saysItsLength(payload []byte) bool {
	var v struct{ Length int }
	return json.Unmarshal(payload, &v) == nil && v.Length == len(payload)
}

// startStandIn starts apnstest.
func startStandIn(t *testing.T, m manner) interopServer {
	o := apnstest.Options{
		ClientCert: apnstest.ClientCertRequired, NoValidation: true,
		Settings: apnstest.Settings{MaxConcurrentStreams: &m.maxStreams},
	}
	base := apnstest.Answer{}
	if m.window > 0 {
		o.Settings.InitialWindowSize = new(uint32(m.window))
	}
	if m.small {
		o.Settings.HeaderTableSize = new(uint32)
		o.IndexAnswers = true
		base.SplitHeaders, base.SplitBody, base.Pad = 5, 1, 200
	}
	o.Script = func(r *apnstest.Request) apnstest.Answer {
		a := base
		switch r.Token[len(r.Token)-4:] {
		case "dead":
			a.Status, a.Timestamp = 410, time.UnixMilli(1700000000000)
		case "0103":
			a.Informational, a.Reason, a.Trailer = []int{103}, "BadTopic", map[string]string{"x-trailer": "end"}
		case "ef5d":
			a.Reset = new(http2.ErrCodeRefusedStream)
		case "abcd":
			a.Reset = new(http2.ErrCodeInternal)
		case "60a1":
			a.Then = func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown")) }
		default:
			if r.BodySize <= len(r.Body) && !saysItsLength(r.Body) {
				a.Reason = "PayloadEmpty"
			}
		}
		return a
	}
	s := startServer(t, o)
	cert := s.ClientCert("com.example.app")
	return interopServer{
		addr: s.Addr, roots: s.CertPool(), cert: &cert,
		echoes: true, rejects: true, resets: true, goesAway: true, wantCert: true,
	}
}

// tool is another program, running. It ends with the test.
type tool struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	said   bytes.Buffer  // on standard error; valid once exited is closed
	exited chan struct{} // closed when it has
}

func startTool(t *testing.T, name string, args ...string) *tool {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: %s", err, toolHint)
	}
	p := &tool{cmd: exec.Command(path, args...), exited: make(chan struct{})}
	p.cmd.SysProcAttr = dieWithParent()
	p.cmd.Stderr = &p.said
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p.cmd.Stdout = w
	p.stdout = bufio.NewReader(r)
	if _, err := p.cmd.StdinPipe(); err != nil { // closed by Wait
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // it is killed, or said why it ended
	}()
	t.Cleanup(func() {
		p.stop()
		r.Close()
		if t.Failed() && p.said.Len() > 0 {
			t.Logf("%s: %s", name, p.said.String())
		}
	})
	return p
}

func (p *tool) stop() {
	_ = p.cmd.Process.Kill() // fails only when it has ended
	<-p.exited
}

// line is the first that p prints.
func (p *tool) line(t *testing.T) string {
	t.Helper()
	s, err := p.stdout.ReadString('\n')
	if err != nil {
		p.stop()
		t.Fatalf("%s: %v: %s", p.cmd.Path, err, p.said.String())
	}
	return strings.TrimSpace(s)
}

// listens waits until p listens on addr, or has ended.
func (p *tool) listens(ctx context.Context, addr string) bool {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", addr); err == nil {
			c.Close()
			return true
		}
		select {
		case <-p.exited:
			return false
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func pemOf(t *testing.T, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
