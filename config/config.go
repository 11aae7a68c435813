package config

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"slices"
	"time"

	"propeller/apnsconn"
	"propeller/queue/queueurl"
)

// Config is a whole configuration, checked: what Load returns needs no further
// validation. The yaml tags name the keys of the file.
type Config struct {
	// File is the path the configuration was read from; "" when it came from
	// flags.
	File string `yaml:"-"`
	// Queue is where the jobs are.
	Queue queueurl.URL `yaml:"queue"`
	Log   Log          `yaml:"log"`
	// ShutdownTimeout bounds the drain at SIGTERM: 1 s to 10 min.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// Watchdog is how long an app may have work and finish none of it before
	// something is done about it: 5 s to 1 h.
	Watchdog time.Duration `yaml:"watchdog"`
	// StateDir is the folder for what outlives the process, as a path that can
	// be opened once it is made; "" for none. That of the file, or else the first
	// of the environment's STATE_DIRECTORY, which systemd sets, or else an embedded
	// queue's own folder.
	StateDir string `yaml:"state_dir"`
	HTTP     HTTP   `yaml:"http"`
	// Apps has at least one app; topics and tubes are unique.
	Apps []App `yaml:"apps"`
	// Warnings are sentences for the operator about the rest; an app has its own.
	Warnings []string `yaml:"-" json:"-"`
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format"` // FormatText or FormatJSON
	Pushes string     `yaml:"pushes"` // PushesAll, PushesFailures or PushesNone
}

// The values of Log.Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// The values of Log.Pushes: which finished pushes get a log line.
const (
	PushesAll      = "all"
	PushesFailures = "failures"
	PushesNone     = "none"
)

// ServerMock is the value of App.Server that asks for the built-in APNs
// stand-in instead of Apple.
const ServerMock = "mock"

// Values of extra_keys.
const (
	ExtraRefuse = "refuse" // a job with a key that no job has can never work
	ExtraIgnore = "ignore" // such a key is left out
)

// App is one topic to deliver for.
type App struct {
	Topic  string `yaml:"topic"`  // bundle id; the default of apns-topic
	Tube   string `yaml:"tube"`   // where its jobs are; the topic unless given
	Server string `yaml:"server"` // production, sandbox, mock or https://host:port

	Cert         string `yaml:"cert"`          // .pem or .p12, as a path that can be opened; "" with Key or server: mock
	CertKey      string `yaml:"cert_key"`      // the key's .pem when Cert does not hold it
	CertPassword Secret `yaml:"cert_password"` // of the .p12 or of the encrypted key
	Key          string `yaml:"key"`           // .p8 for provider tokens, instead of Cert, as a path that can be opened
	KeyID        string `yaml:"key_id"`        // of Key, 10 characters
	TeamID       string `yaml:"team_id"`       // of the account that Key is from, 10 characters
	CAFile       string `yaml:"ca_file"`       // .pem of roots trusted besides the system's

	// Proxy is the way to APNs: that of the file, or else of the environment's
	// HTTPS_PROXY and NO_PROXY. None with server: mock.
	Proxy SecretURL `yaml:"proxy"`

	Workers     int           `yaml:"workers"`      // 1 to MaxWorkers
	InFlight    int           `yaml:"in_flight"`    // pushes in flight per worker, 1 to MaxInFlight
	PushTimeout time.Duration `yaml:"push_timeout"` // 1 s to 60 s
	Retry       Retry         `yaml:"retry"`
	// Expiration and TTL are for jobs that give none, each from when the job was
	// put, 1 s to 30 days; 0 = none. APNs stores a push until Expiration; after
	// TTL a job is not sent any more.
	Expiration time.Duration `yaml:"expiration"`
	TTL        time.Duration `yaml:"ttl"`
	ExtraKeys  string        `yaml:"extra_keys"` // of jobs: ExtraRefuse or ExtraIgnore
	Feedback   Feedback      `yaml:"feedback"`

	// What loading found out, from the keys above.

	// Addr is APNs' host:port; "" with server: mock.
	Addr string `yaml:"-" json:"-"`
	// Env is Apple's environment behind Addr.
	Env apnsconn.Environment `yaml:"-" json:"-"`
	// ByCertificate: the file gives Cert. Known without credentials, too.
	ByCertificate bool `yaml:"-" json:"-"`
	// Certificate is nil without Cert, and if Cert cannot be used.
	Certificate *apnsconn.Certificate `yaml:"-" json:"-"`
	// SigningKey is nil without Key, and if Key cannot be used.
	SigningKey *apnsconn.Key `yaml:"-" json:"-"`
	// Faults are what is wrong with the credential, as far as the configuration and its
	// files go. With Options.Lenient only.
	Faults Faults `yaml:"-" json:"-"`
	// RootCAs is nil without CAFile: the system's roots.
	RootCAs *x509.CertPool `yaml:"-" json:"-"`
	// Warnings are sentences for the operator: things that work today.
	Warnings []string `yaml:"-" json:"-"`

	rootsHash [sha256.Size]byte     // of CAFile's content; zero without
	found     *apnsconn.Certificate // what Cert holds, also if it is not fit to be used
	source    *source               // of the credential; nil without any key of one
}

// Retry says how long a push that APNs could not take is tried again.
type Retry struct {
	Min         time.Duration `yaml:"min"`           // first delay, 1 s to 1 h
	Max         time.Duration `yaml:"max"`           // longest delay, Min to 24 h
	GiveUpAfter time.Duration `yaml:"give_up_after"` // since the job was put; then it is buried; Min to 30 days
}

// Mock reports whether the app wants the built-in APNs stand-in.
func (a *App) Mock() bool { return a.Server == ServerMock }

// Same reports whether a running a can go on as other: nothing but the number
// of workers differs. Credentials are compared by content, so that a renewed
// certificate under the same path is a difference and a moved one is not. Why an app
// is broken is no difference.
func (a *App) Same(other *App) bool {
	return a.Topic == other.Topic &&
		a.Tube == other.Tube &&
		a.Server == other.Server &&
		a.Addr == other.Addr &&
		a.InFlight == other.InFlight &&
		a.PushTimeout == other.PushTimeout &&
		a.Retry == other.Retry &&
		a.Expiration == other.Expiration &&
		a.TTL == other.TTL &&
		a.ExtraKeys == other.ExtraKeys &&
		a.Feedback.same(other.Feedback) &&
		a.rootsHash == other.rootsHash &&
		a.Proxy.same(other.Proxy) &&
		a.Broken() == other.Broken() &&
		sameCertificate(a.Certificate, other.Certificate) &&
		a.SigningKey.Same(other.SigningKey)
}

// sameCertificate compares the chains as they go over the wire: the leaf
// stands for its key, and a renewed intermediate is a difference too.
func sameCertificate(a, b *apnsconn.Certificate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Fingerprint == b.Fingerprint &&
		slices.EqualFunc(a.TLS.Certificate, b.TLS.Certificate, bytes.Equal)
}
