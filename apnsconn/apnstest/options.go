package apnstest

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"golang.org/x/net/http2"
)

// Options of a [Server]. The zero value behaves as Apple documents, answers
// 200 to every valid request at once, and listens on a loopback port of the
// system's choice.
type Options struct {
	// Addr is the listen address; default "127.0.0.1:0".
	Addr string
	// Hosts are names and addresses for the server's certificate, in addition to
	// localhost and the loopback addresses.
	Hosts []string
	// TLSCert replaces the certificate that the server makes for itself.
	TLSCert *tls.Certificate
	// TLSConfig, if set, may change the server's TLS configuration, for example to limit the
	// version.
	TLSConfig func(*tls.Config)

	// Delay is the time from a request's end to its answer: a simulated
	// round trip.
	Delay time.Duration
	// DelayWindowUpdates makes WINDOW_UPDATE frames wait for Delay too, as a
	// real round trip does.
	DelayWindowUpdates bool

	// Settings are the values of the first SETTINGS frame.
	Settings Settings
	// ConnWindow is how many bytes of DATA a connection may have unacknowledged; the default is
	// 65535, as at APNs. A smaller value has no effect: HTTP/2 cannot announce less.
	ConnWindow uint32
	// IndexAnswers puts the fields of answers in HPACK's dynamic table. The
	// default sends apns-id as a literal: its values never repeat.
	IndexAnswers bool

	// ClientCert says how client certificates are treated.
	ClientCert ClientCertMode
	// RefuseHandshake, if set, sees each client certificate during the
	// handshake; an error ends the handshake with the alert bad_certificate.
	RefuseHandshake func(*x509.Certificate) error
	// RefuseCert, if set, sees each client certificate; a reason makes the
	// server answer 403 with that reason to every request of the connection.
	RefuseCert func(*x509.Certificate) (reason string)
	// Environment is "production" or "sandbox": a client certificate that
	// names only the other one is answered 403 BadCertificateEnvironment.
	// Empty: not checked.
	Environment string
	// AllowAnonymous accepts requests with neither client certificate nor
	// provider token. APNs answers them 403 MissingProviderToken.
	AllowAnonymous bool
	// VerifyToken, if set, sees a provider token (the JWT, without "bearer ") when a connection
	// first uses it; a reason is answered with its status. The server itself checks the form, the
	// age, and that a connection keeps to one key.
	VerifyToken func(jwt string) (reason string)
	// MinTokenAge answers 429 TooManyProviderTokenUpdates to a second
	// provider token used on a connection earlier than this after the first.
	// 20 minutes at APNs (Apple: establishing-a-token-based-connection-to-apns);
	// 0 allows any.
	MinTokenAge time.Duration

	// NoValidation sends every request that is valid HTTP/2 to Script.
	NoValidation bool
	// Script decides the answers to valid requests; nil answers 200.
	Script Script
	// Record is how many requests are kept for [Server.Requests], the newest
	// ones; 0 means 100,000, negative none (they are only counted).
	Record int
	// OnRequest, if set, is called with each request once its answer is decided, from the
	// connection's goroutine. It must not block. With Record < 0 the request is valid only during
	// the call.
	OnRequest func(*Request)
	// OnConn, if set, is called for each connection when its first SETTINGS
	// frame has been queued and before anything is read, for scripts that
	// begin there.
	OnConn func(*Conn)

	// OneStreamFirst announces one stream until the first answer with status
	// 200, then Settings.MaxConcurrentStreams: what APNs does with provider
	// tokens (Apple: sending-notification-requests-to-apns).
	OneStreamFirst bool
	// DropTo1After4xx announces one stream after an answer 4xx other than
	// 410, and the full number after the next 200, as seen at APNs
	// (jchambers/pushy#732).
	DropTo1After4xx bool
	// GoAwayOnExcess makes the server end a connection that opens more streams than announced,
	// by GOAWAY code 7 with the text seen at APNs, instead of refusing the stream
	// (jchambers/pushy#356).
	GoAwayOnExcess bool
	// WithholdWindowUpdates starts connections that never acknowledge DATA.
	WithholdWindowUpdates bool

	// SlowHandshake is how long the server waits before the TLS handshake.
	SlowHandshake time.Duration
	// NoSettings never sends the first SETTINGS frame.
	NoSettings bool
	// NoALPN negotiates no protocol in TLS, then says nothing.
	NoALPN bool
}

// Settings are values of a first SETTINGS frame. A nil field means the value
// seen at APNs (jchambers/pushy#356, #878).
type Settings struct {
	MaxConcurrentStreams *uint32 // default 1000
	InitialWindowSize    *uint32 // default 65535 bytes
	MaxFrameSize         *uint32 // default 16384 bytes
	HeaderTableSize      *uint32 // default 4096 bytes
	MaxHeaderListSize    *uint32 // default 8000 bytes

	// NoStreamLimit leaves MAX_CONCURRENT_STREAMS out: no limit.
	NoStreamLimit bool
}

// ClientCertMode says how a server treats client certificates.
type ClientCertMode int

const (
	// ClientCertOptional asks for a certificate and accepts any or none, as APNs does in the
	// handshake.
	ClientCertOptional ClientCertMode = iota
	// ClientCertRequired ends the handshake with an alert if the client has no certificate, an
	// expired one, or one from another authority than the server's. The handshake names the
	// authority, so some clients, Go's among them, do not even present a certificate of another
	// issuer; see [OtherAuthority] for one that is presented and refused.
	ClientCertRequired
	// ClientCertNone does not ask.
	ClientCertNone
)

const (
	defaultRecord     = 100_000
	defaultConnWindow = 65535
	noLimit           = 1<<32 - 1
)

// values are the settings in force, with defaults applied.
type values struct {
	maxStreams, window, maxFrame, tableSize, maxHeaderList uint32
}

func (s Settings) values() values {
	v := values{1000, 65535, 16384, 4096, 8000}
	set := func(dst, src *uint32) {
		if src != nil {
			*dst = *src
		}
	}
	set(&v.maxStreams, s.MaxConcurrentStreams)
	set(&v.window, s.InitialWindowSize)
	set(&v.maxFrame, s.MaxFrameSize)
	set(&v.tableSize, s.HeaderTableSize)
	set(&v.maxHeaderList, s.MaxHeaderListSize)
	if s.NoStreamLimit {
		v.maxStreams = noLimit
	}
	return v
}

// frame returns the SETTINGS to send for v.
func (v values) frame(noStreamLimit bool) []http2.Setting {
	s := []http2.Setting{
		{ID: http2.SettingHeaderTableSize, Val: v.tableSize},
		{ID: http2.SettingInitialWindowSize, Val: v.window},
		{ID: http2.SettingMaxFrameSize, Val: v.maxFrame},
		{ID: http2.SettingMaxHeaderListSize, Val: v.maxHeaderList},
	}
	if !noStreamLimit {
		s = append(s, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: v.maxStreams})
	}
	return s
}
