package apnsconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"propeller/internal/neterr"
)

// Dial opens a connection and waits until the peer is ready for pushes, until ctx ends, or for
// Config.DialTimeout. It looks up the address each time, as Apple asks; with Config.Proxy it
// looks up the proxy's address, and the proxy looks up the server's. The error wraps ErrCredential
// if the peer refused the client certificate.
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	c, err := dial(ctx, cfg.withDefaults())
	if err == nil {
		return c, nil
	}
	if isCredentialAlert(err) {
		err = fmt.Errorf("%w: %w", ErrCredential, err)
	}
	through := ""
	if cfg.Proxy != nil {
		through = " through " + proxyName(cfg.Proxy)
	}
	return nil, fmt.Errorf("apnsconn: dial %q%s: %w", cfg.Addr, through, neterr.Plain(err, cfg.Addr))
}

func dial(ctx context.Context, cfg Config) (*Conn, error) {
	if cfg.Certificate != nil && cfg.Token != nil {
		// APNs would silently ignore the token (Apple:
		// sending-notification-requests-to-apns).
		return nil, errors.New("has both a certificate and a provider token: give only one of them")
	}
	if cert := cfg.Certificate; cert != nil && cert.Leaf != nil && time.Now().After(cert.Leaf.NotAfter) {
		// Endless dialling with an expired one has taken servers down (jchambers/pushy#1095).
		return nil, fmt.Errorf("%w: the certificate expired on %s: renew it", ErrCredential, cert.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.DialTimeout,
		fmt.Errorf("not ready within %v: %w", cfg.DialTimeout, context.DeadlineExceeded))
	defer cancel()
	host, port, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, err
	}
	nc, raw, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(nc, tlsConfig(cfg, host))
	if err := handshake(ctx, tc); err != nil {
		_ = raw.Close()
		return nil, phase(ctx, "TLS handshake", err)
	}
	authority := host
	if strings.Contains(host, ":") {
		authority = "[" + host + "]"
	}
	if port != "443" {
		authority = cfg.Addr
	}
	c, err := newConn(ctx, cfg, authority, tc, raw)
	if err != nil {
		_ = raw.Close()
		return nil, phase(ctx, "HTTP/2 SETTINGS", err)
	}
	return c, nil
}

// phase adds the phase of a dial to err. If ctx has ended, err is only a consequence, and the
// cause of that replaces it.
func phase(ctx context.Context, name string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s: %w", name, err)
}

func tlsConfig(cfg Config, host string) *tls.Config {
	t := &tls.Config{
		MinVersion: tls.VersionTLS12, // Apple: sending-notification-requests-to-apns
		ServerName: host,
		RootCAs:    cfg.RootCAs,
		NextProtos: []string{"h2"},
		// Use records of full size from the start, so that batches go out in few of them.
		DynamicRecordSizingDisabled: true,
	}
	if cfg.Certificate != nil {
		// Present it even if the server's list of authorities does not name its issuer: the
		// server then says what is wrong with it.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return cfg.Certificate, nil
		}
	}
	return t
}

func handshake(ctx context.Context, tc *tls.Conn) error {
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	if p := tc.ConnectionState().NegotiatedProtocol; p != "h2" {
		return fmt.Errorf("server does not speak HTTP/2 (ALPN answer %q, want \"h2\"): is it APNs?", p)
	}
	return nil
}

// newConn makes an HTTP/2 connection of nc and starts it when the peer's SETTINGS have arrived.
// raw is beneath nc, or the same. On error the caller closes both.
func newConn(ctx context.Context, cfg Config, authority string, nc, raw net.Conn) (*Conn, error) {
	c := &Conn{
		cfg:     cfg,
		nc:      nc,
		raw:     raw,
		born:    time.Now(),
		done:    make(chan struct{}),
		work:    make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		all:     pushList{kind: kindAll},
		waiting: pushList{kind: kindQueue},
		blocked: pushList{kind: kindQueue},
		streams: make(map[uint32]*push),
		nextID:  firstStreamID,
		peer:    defaultPeerSettings(),
		fresh:   true,
		window:  65535, // RFC 9113 §6.9.2: not changed by SETTINGS
		headers: newHeaderEncoder(authority),
		token:   connToken{source: cfg.Token},
	}
	c.frames = http2.NewFramer(&c.out, nil)
	r := newReader(c)

	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // long past
	err := c.greet(r)
	if !stop() {
		return nil, context.Cause(ctx) // with that deadline raw cannot be used
	}
	if err != nil {
		return nil, err
	}
	go c.connLoop(r)
	return c, nil
}

// greet exchanges the connection prefaces (RFC 9113 §3.4). No push is sent before the peer's
// SETTINGS arrive, because they say how many streams it allows.
func (c *Conn) greet(r *reader) error {
	c.out.b = append(c.out.b, http2.ClientPreface...)
	_ = c.frames.WriteSettings( // to memory
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingHeaderTableSize, Val: maxTableSize},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
	)
	_ = c.frames.WriteWindowUpdate(0, connWindow-65535)
	c.settingsSent = 1
	_, writeErr := c.nc.Write(c.out.b)
	c.out.b = c.out.b[:0]

	// A peer that refuses the connection may close it before it has read all of that. What it
	// wrote says why, so read that first.
	settings, err := r.settings()
	switch {
	case err != nil && writeErr != nil && !isCredentialAlert(err):
		return writeErr
	case err != nil:
		return err
	case writeErr != nil:
		return writeErr
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applySettings(settings)
}

// settings reads the peer's first frame, which must be SETTINGS.
func (r *reader) settings() (first *http2.SettingsFrame, err error) {
	defer recovered(&err)
	f, err := r.frames.ReadFrame()
	switch {
	case errors.Is(r.src.err, io.EOF):
		return nil, errors.New("server closed the connection before its SETTINGS")
	case r.src.err != nil:
		return nil, r.src.err
	case err != nil:
		return nil, r.readError(err)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return f, nil
		}
		return nil, breach(http2.ErrCodeProtocol, "acknowledged SETTINGS before it sent its own")
	case *http2.GoAwayFrame:
		return nil, newGoAwayError(f)
	}
	return nil, breach(http2.ErrCodeProtocol, "first frame is %s, want SETTINGS", f.Header().Type)
}

// isCredentialAlert reports whether err is a TLS alert that refuses the client certificate
// (RFC 8446 §6.2). handshake_failure does not count: it has many causes.
func isCredentialAlert(err error) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	// crypto/tls does not export the type of received alerts, but AlertError has the same texts.
	for _, alert := range [...]tls.AlertError{
		42,  // bad_certificate
		43,  // unsupported_certificate
		44,  // certificate_revoked
		45,  // certificate_expired
		46,  // certificate_unknown
		48,  // unknown_ca
		49,  // access_denied
		116, // certificate_required
	} {
		if op.Err.Error() == alert.Error() {
			return true
		}
	}
	return false
}

// Environment is one of APNs' two environments. Device tokens, and most certificates and keys,
// belong to one of them.
type Environment uint8

// The environments. Other is a server that is not Apple's; it may play either of them.
const (
	Other Environment = iota
	Production
	Sandbox
)

// String is production, sandbox or other.
func (e Environment) String() string {
	switch e {
	case Production:
		return "production"
	case Sandbox:
		return "sandbox"
	}
	return "other"
}

// Apple's servers (Apple: sending-notification-requests-to-apns). The third is
// another name of the sandbox (establishing-a-connection-to-apns).
const (
	hostProduction  = "api.push.apple.com"
	hostSandbox     = "api.sandbox.push.apple.com"
	hostDevelopment = "api.development.push.apple.com"
)

// ServerAddr returns the host:port to dial for a server as the configuration names it:
// production, sandbox, or https://host:port, where the port defaults to 443. The environment of
// an address of Apple's is Apple's, so https://api.push.apple.com:2197 is Production; any other
// address is Other.
//
// The error quotes the name, but never a password in it.
func ServerAddr(name string) (addr string, env Environment, err error) {
	switch name {
	case "production":
		return hostProduction + ":443", Production, nil
	case "sandbox":
		return hostSandbox + ":443", Sandbox, nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "", Other, serverError(withoutUserinfo(name), "want production, sandbox or https://host:port")
	}
	shown := u.Redacted()
	switch {
	case u.Scheme != "https":
		return "", Other, serverError(shown, "APNs is reached by https only: want https://host:port")
	case u.User != nil:
		return "", Other, serverError(shown, "an APNs server has no user and password; remove them")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return "", Other, serverError(shown, "want https://host:port with nothing after it")
	case u.Hostname() == "":
		return "", Other, serverError(shown, "the host is missing: want https://host:port")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", Other, serverError(shown, "the port is not between 1 and 65535")
	}
	host := strings.ToLower(u.Hostname())
	return net.JoinHostPort(host, port), hostEnvironment(host), nil
}

func hostEnvironment(host string) Environment {
	switch host {
	case hostProduction:
		return Production
	case hostSandbox, hostDevelopment:
		return Sandbox
	}
	return Other
}

func serverError(name, why string) error {
	return fmt.Errorf("apnsconn: server %q: %s", name, why)
}

// withoutUserinfo removes what may be a user and password from text that is not a URL.
func withoutUserinfo(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}
