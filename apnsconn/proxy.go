package apnsconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxProxyAnswer bounds the head of a proxy's answer to CONNECT, in bytes. Proxies send a
	// few hundred; some add cookies.
	maxProxyAnswer = 16 << 10

	// maxInterim is how many interim answers (1xx) a proxy may send first.
	maxInterim = 5
)

// ParseProxy reads the address of an HTTP proxy for Config.Proxy: http://host:port, or
// https://host:port for TLS to the proxy itself, with user:password@ before the host if the
// proxy asks for them. The port defaults to 80 or 443. The error does not quote the text, which
// may hold a password.
func ParseProxy(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		// url.Parse's error quotes the text.
		return nil, errors.New("apnsconn: proxy: is not a URL: want http://host:port, and in user and password every character but letters and digits as %XX")
	}
	if err := checkProxy(u); err != nil {
		return nil, err
	}
	return u, nil
}

func checkProxy(u *url.URL) error {
	why := ""
	switch user := u.User.Username(); {
	case u.Scheme != "http" && u.Scheme != "https":
		why = "want http://host:port or https://host:port; other kinds of proxies are not supported"
	case u.Hostname() == "":
		why = "the host is missing: want http://host:port"
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		why = "want http://host:port with nothing after it; in user and password write / ? # as %2F %3F %23"
	case u.Port() != "" && !validPort(u.Port()):
		why = "the port is not between 1 and 65535"
	case strings.Contains(user, ":"):
		why = "the user's name has a colon, which the Basic scheme does not allow" // RFC 7617 §2
	default:
		return nil
	}
	return errors.New("apnsconn: proxy: " + why)
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// proxyName is a proxy's URL without user and password, for errors.
func proxyName(u *url.URL) string { return u.Scheme + "://" + u.Host }

// String names the server, and the proxy without its user and password, so that a Config can be
// logged.
func (cfg Config) String() string {
	if cfg.Proxy == nil {
		return "apnsconn.Config{" + cfg.Addr + "}"
	}
	return "apnsconn.Config{" + cfg.Addr + " through " + proxyName(cfg.Proxy) + "}"
}

// connect connects to cfg.Addr, by TCP or by a tunnel through cfg.Proxy. nc carries the bytes;
// raw is the TCP connection beneath it, for deadlines and for closing.
func connect(ctx context.Context, cfg Config) (nc, raw net.Conn, err error) {
	if cfg.Proxy == nil {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", cfg.Addr)
		if err != nil {
			return nil, nil, phase(ctx, "connect", err)
		}
		return progressConn{raw, cfg.WriteTimeout}, raw, nil
	}
	if err := checkProxy(cfg.Proxy); err != nil {
		return nil, nil, err
	}
	nc, raw, err = dialProxy(ctx, cfg)
	if err == nil {
		nc, err = openTunnel(ctx, cfg, nc, raw)
	}
	if err != nil {
		if raw != nil {
			_ = raw.Close()
		}
		return nil, nil, fmt.Errorf("proxy: %w", err)
	}
	return nc, raw, nil
}

// dialProxy connects to the proxy itself. On error raw may still be open.
func dialProxy(ctx context.Context, cfg Config) (nc, raw net.Conn, err error) {
	host, port := cfg.Proxy.Hostname(), cfg.Proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[cfg.Proxy.Scheme]
	}
	raw, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, nil, phase(ctx, "connect", err)
	}
	nc = progressConn{raw, cfg.WriteTimeout}
	if cfg.Proxy.Scheme == "http" {
		return nc, raw, nil
	}
	tc := tls.Client(nc, &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		RootCAs:    cfg.RootCAs,
		NextProtos: []string{"http/1.1"},
	})
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, raw, phase(ctx, "TLS handshake", ofProxy(err))
	}
	return tc, raw, nil
}

// openTunnel asks the proxy at the other end of nc for a tunnel to cfg.Addr (RFC 9110 §9.3.6).
func openTunnel(ctx context.Context, cfg Config, nc, raw net.Conn) (net.Conn, error) {
	for i := range len(cfg.Addr) {
		if b := cfg.Addr[i]; b <= ' ' || b > '~' {
			return nil, errors.New("the server's address has a character that is not visible ASCII")
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // long past
	early, err := askTunnel(nc, cfg)
	if !stop() {
		err = context.Cause(ctx) // with that deadline raw cannot be used
	}
	if err != nil {
		return nil, phase(ctx, "CONNECT", ofProxy(err))
	}
	return &tunnel{nc, early}, nil
}

// askTunnel sends CONNECT and reads the answer. early is what arrived after the answer.
func askTunnel(nc net.Conn, cfg Config) (early []byte, err error) {
	var ask bytes.Buffer
	fmt.Fprintf(&ask, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n", cfg.Addr)
	if user := cfg.Proxy.User; user != nil {
		password, _ := user.Password()
		login := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		fmt.Fprintf(&ask, "Proxy-Authorization: Basic %s\r\n", login)
	}
	ask.WriteString("\r\n")
	if _, err := nc.Write(ask.Bytes()); err != nil {
		return nil, err
	}
	src := &proxyReader{r: nc, left: maxProxyAnswer}
	in := bufio.NewReader(src)
	for range 1 + maxInterim {
		answer, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
		switch {
		case err != nil && src.err != nil:
			return nil, src.err
		case err != nil:
			// The error would quote what the proxy sent, which may be anything.
			return nil, errors.New("the answer is not HTTP/1: is it a proxy?")
		}
		switch status := answer.StatusCode; {
		case status/100 == 2:
			early, _ = in.Peek(in.Buffered())
			return bytes.Clone(early), nil
		case status/100 != 1 || status == http.StatusSwitchingProtocols:
			return nil, refusedTunnel(status, cfg.Proxy.User != nil)
		}
	}
	return nil, errors.New("too many interim answers")
}

func refusedTunnel(status int, login bool) error {
	hint := ""
	switch {
	case status == http.StatusProxyAuthRequired && login:
		hint = ": the proxy does not accept the user and password of its URL"
	case status == http.StatusProxyAuthRequired:
		hint = ": put user and password into its URL, http://user:password@host:port"
	}
	// Use our own text: the proxy's may be anything.
	return fmt.Errorf("refused with status %s%s", strings.TrimSpace(fmt.Sprint(status, " ", http.StatusText(status))), hint)
}

// proxyReader reads at most left bytes of a proxy's answer, and keeps the error, which the HTTP
// parser would replace.
type proxyReader struct {
	r    io.Reader
	left int
	err  error
}

func (r *proxyReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		r.err = fmt.Errorf("the answer's head is longer than %d KiB", maxProxyAnswer>>10)
		return 0, r.err
	}
	n, err := r.r.Read(p[:min(len(p), r.left)])
	r.left -= n
	if errors.Is(err, io.EOF) {
		err = errors.New("the proxy closed the connection before its answer")
	}
	r.err = err
	return n, err
}

// tunnel is a connection through a proxy.
type tunnel struct {
	net.Conn
	early []byte // bytes of the server that arrived with the proxy's answer
}

func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(p, t.early)
		t.early = t.early[n:]
		return n, nil
	}
	n, err := t.Conn.Read(p)
	return n, ofProxy(err)
}

// ofProxy keeps a TLS alert of the proxy from being taken for APNs' refusal of the client
// certificate. It returns other errors unchanged.
func ofProxy(err error) error {
	if isCredentialAlert(err) {
		return proxyAlert{err.Error()}
	}
	return err
}

// proxyAlert is an error that does not unwrap.
type proxyAlert struct{ text string }

func (e proxyAlert) Error() string { return e.text }
