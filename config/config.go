// Package config turns propeller.yaml, or the flags of one app, into a Config
// that is complete and checked: defaults filled in, environment variables and
// secret files read, credentials loaded, every limit kept.
//
// The keys are the tagged fields of Config, App and HTTPKey: see fields.go. A file
// goes this way:
//
//	Load    reads it
//	Parse   YAML → nodes with lines → layers of entries, unknown and doubled keys (yaml.go)
//	        defaults under each app, entries → text (layer.go) → fields (fields.go)
//	        what concerns several fields or several apps (check.go)
//	        certificates and roots (credential.go)
//
// Nothing stops at the first fault: the error is a Faults value that holds all
// of them, each with its line, key and what to do. Faults quote what the file
// says, never what a variable or a secret file expands to.
package config

import (
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"propeller/apnsconn"
	"propeller/queue/queueurl"
)

// Config is a whole configuration, checked: what Load returns needs no further
// validation.
type Config struct {
	// File is the path the configuration was read from; "" when it came from
	// flags.
	File string
	// Queue is where the jobs are.
	Queue queueurl.URL `key:"queue" flag:"URL[,URL]" usage:"URL of the queue; a list for several beanstalkd servers"`
	Log   Log          `key:"log"`
	// ShutdownTimeout bounds the drain at SIGTERM. Below a second a slow handshake
	// looks like a dead server; process managers kill long before 10 minutes.
	ShutdownTimeout time.Duration `key:"shutdown_timeout" default:"30s" min:"1s" max:"10m" why:"it bounds the drain at shutdown"`
	// Watchdog is how long an app may have work and finish none of it before
	// something is done about it. A queue or APNs that is merely slow is not a stall;
	// a stall noticed only after an hour has already been reported by users.
	Watchdog time.Duration `key:"watchdog" default:"60s" min:"5s" max:"1h" why:"it finds apps that have stopped, and cannot be switched off"`
	// StateDir is the folder for what outlives the process, as a path that can
	// be opened once it is made; "" for none. That of the file, or else the first
	// of the environment's STATE_DIRECTORY, which systemd sets, or else an embedded
	// queue's own folder.
	StateDir string `key:"state_dir" path:"true"`
	HTTP     HTTP   `key:"http"`
	// Metrics says what GET /metrics has.
	Metrics Metrics `key:"metrics"`
	// Apps has at least one app; names and tubes are unique, topics need not be.
	Apps []App `key:"apps"`
	// Warnings are sentences for the operator about the rest; an app has its own.
	Warnings []string `json:"-" yaml:"-"`
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level `key:"level" default:"info" oneof:"debug info warn error"`
	Format string     `key:"format" default:"text" oneof:"text json"`
	Pushes string     `key:"pushes" default:"failures" oneof:"failures all none" flag:"WHICH" usage:"which finished pushes to log: failures, all or none"`
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

// HTTP says how the daemon is reached over HTTP; without Listen it is not.
type HTTP struct {
	// Listen is host:port, port 0 being one that the system chooses, or unix: and
	// the absolute path of a socket.
	Listen string `key:"listen" flag:"HOST:PORT" usage:"serve HTTP at this address; unix:PATH for a socket"`
	// AuthToken is the key of a client that may do everything, and the auth_token
	// of form clients; empty for none.
	AuthToken Secret `key:"auth_token" secret:"true" as:"token"`
	// Keys are more of them, each for less. Without any key Listen is loopback or
	// a socket.
	Keys []HTTPKey `key:"keys"`
	// TLSCert and TLSKey are .pem files that exist as long as the daemon does;
	// both or none is given.
	TLSCert string `key:"tls_cert" path:"true"`
	TLSKey  string `key:"tls_key" path:"true"`
	// TrustedProxies are believed about whom they ask for.
	TrustedProxies []netip.Prefix `key:"trusted_proxies"`
	// BasePath is where a proxy serves the daemon, "/a/b"; "" for "/".
	BasePath string `key:"base_path" as:"base_path"`
	PProf    bool   `key:"pprof" oneof:"true false"` // serves profiles of the process
	// HSTS has browsers come by TLS only from then on, for a year.
	HSTS bool `key:"hsts" oneof:"true false"`
}

// Metrics says what GET /metrics has.
type Metrics struct {
	// UnusedApps: also the series of apps that have done nothing since the start and have no
	// jobs. There are some 45 an app, which is 45 MB a scrape with 10,000 of them.
	UnusedApps bool `key:"unused_apps" default:"true" oneof:"true false"`
}

// HTTPKey is what one client shows, and may do.
type HTTPKey struct {
	Name  string `key:"name" as:"client"` // for the log
	Token Secret `key:"token" secret:"true" as:"token"`
	Role  string `key:"role" oneof:"read send admin"`
	// Apps are the names of the apps that the key is for, and Topics the same by their
	// topics; one of the two at most. nil, both: all apps.
	Apps   []string `key:"apps"`
	Topics []string `key:"topics"`
	// Rate is how many notifications it may send a second; 0: no limit. More than a million makes no difference.
	Rate int `key:"rate" min:"1" max:"1000000" why:"it counts notifications a second; without the key there is no limit"`
}

// The values of HTTPKey.Role, each of which may do what those before may.
const (
	RoleRead  = "read"  // look
	RoleSend  = "send"  // put jobs
	RoleAdmin = "admin" // change what runs, and see whole device tokens
)

// AuthTokenName is how the log calls the client with auth_token.
const AuthTokenName = "auth_token"

// ServerMock is the value of App.Server that asks for the built-in APNs
// stand-in instead of Apple.
const ServerMock = "mock"

// Values of extra_keys.
const (
	ExtraRefuse = "refuse" // a job with a key that no job has can never work
	ExtraIgnore = "ignore" // such a key is left out
)

// App is one entry of the configuration: a topic to deliver for, and how. Several may have
// the same topic, for example for two environments, or as lanes of their own.
type App struct {
	// Name is how the app is addressed everywhere; the topic unless given. It must be a tube
	// name, since it is the default of tube; every topic that Apple assigns is one.
	Name string `key:"name" as:"name" own:"true" flag:"NAME" usage:"name of the app (default the topic)"`
	// Topic is the bundle id, the default of apns-topic.
	Topic string `key:"topic" as:"tube" own:"true" flag:"BUNDLE-ID" usage:"run one app for this topic, without a file"`
	// Tube is where its jobs are; the name unless given.
	Tube string `key:"tube" as:"tube" own:"true" flag:"NAME" usage:"queue tube of its jobs (default the name)"`
	// Server is production, sandbox, mock or https://host:port.
	Server string `key:"server" default:"production" as:"server" flag:"NAME" usage:"production, sandbox, mock or https://host:port"`

	// Cert is a .pem or .p12, as a path that can be opened; "" with Key or server: mock.
	Cert string `key:"cert" path:"true" credential:"cert" flag:"FILE" usage:"certificate, .pem or .p12"`
	// CertKey is the key's .pem when Cert does not hold it.
	CertKey string `key:"cert_key" path:"true" credential:"cert" flag:"FILE" usage:"its key, if in a separate file"`
	// CertPassword is that of the .p12 or of the encrypted key.
	CertPassword Secret `key:"cert_password" secret:"true" credential:"cert" flag:"TEXT" usage:"password of the .p12 or the key; others can see it in the process list"`
	// Key is a .p8 for provider tokens, instead of Cert, as a path that can be opened.
	Key    string `key:"key" path:"true" credential:"key" flag:"FILE" usage:"key for provider tokens, .p8, instead of a certificate"`
	KeyID  string `key:"key_id" credential:"key" flag:"ID" usage:"id of that key"`
	TeamID string `key:"team_id" credential:"key" flag:"ID" usage:"team id of the account"`
	// CAFile is a .pem of roots trusted besides the system's.
	CAFile string `key:"ca_file" path:"true" credential:"roots" flag:"FILE" usage:"roots to trust in addition to the system's"`

	// Proxy is the way to APNs: that of the file, or else of the environment's
	// HTTPS_PROXY and NO_PROXY. None with server: mock. It may hold a password.
	Proxy SecretURL `key:"proxy" secret:"true" as:"proxy"`

	// Workers: one connection carries more than most apps ever send, and APNs treats
	// needless connections as an attack. 100 carry far more than one machine can encrypt.
	Workers int `key:"workers" live:"true" default:"1" min:"1" max:"100" why:"each is a connection to APNs and one to the queue" flag:"N" usage:"workers, each with a connection to APNs"`
	// InFlight is pushes in flight per worker. APNs usually grants 1000 streams on a
	// connection, and beanstalkd walks through all jobs reserved on a connection for
	// each command; beyond 2000 that walk is what takes the time.
	InFlight int `key:"in_flight" default:"500" min:"1" max:"2000" why:"beyond that the queue's cost per job grows: give more workers instead"`
	// MaxRate is how many requests to APNs all workers of this daemon send together in a second; 0:
	// no limit. More than 100,000 makes no difference on any machine.
	MaxRate int `key:"max_rate" live:"true" min:"1" max:"100000" why:"it counts pushes a second; without the key there is no limit" flag:"N" usage:"most pushes a second, over all workers (default no limit)"`
	// PushTimeout stays well inside the 120 s for which its job is reserved, so that
	// the job cannot be served again meanwhile.
	PushTimeout time.Duration `key:"push_timeout" default:"20s" min:"1s" max:"1m" why:"a push must end well before its job's reservation of 120s does"`
	Retry       Retry         `key:"retry"`
	// Expiration and TTL are for jobs that set none; 0 = none. Expiration counts from each try, TTL
	// from the put, known in whole seconds. APNs stores a push until Expiration, 30 days
	// at most ("Viewing the status of push notifications using Metrics and APNs"); after
	// TTL a job is not sent any more.
	Expiration time.Duration `key:"expiration" min:"1s" max:"720h" why:"APNs keeps a notification for 30 days at most"`
	TTL        time.Duration `key:"ttl" min:"1s" max:"720h" why:"APNs itself keeps a notification for 30 days at most"`
	ExtraKeys  string        `key:"extra_keys" default:"refuse" oneof:"refuse ignore"` // of jobs
	Feedback   Feedback      `key:"feedback"`

	// What loading found out, from the keys above.

	// Addr is APNs' host:port; "" with server: mock.
	Addr string `json:"-" yaml:"-"`
	// Env is Apple's environment behind Addr.
	Env apnsconn.Environment `json:"-" yaml:"-"`
	// ByCertificate: the file gives Cert. Known without credentials, too.
	ByCertificate bool `json:"-" yaml:"-"`
	// Certificate is nil without Cert, and if Cert cannot be used.
	Certificate *apnsconn.Certificate `json:"-" yaml:"-"`
	// SigningKey is nil without Key, and if Key cannot be used.
	SigningKey *apnsconn.Key `json:"-" yaml:"-"`
	// Faults are what is wrong with the credential, as far as the configuration and its
	// files go. With Options.Lenient only.
	Faults Faults `json:"-" yaml:"-"`
	// RootCAs is nil without CAFile: the system's roots.
	RootCAs *x509.CertPool `json:"-" yaml:"-"`
	// Warnings are sentences for the operator: things that work today.
	Warnings []string `json:"-" yaml:"-"`

	rootsHash [sha256.Size]byte     // of CAFile's content; zero without
	found     *apnsconn.Certificate // what Cert holds, also if it is not fit to be used
	source    *source               // of the credential; nil without any key of one
}

// Retry says how long a push that APNs could not take is tried again. beanstalkd delays
// jobs by whole seconds (protocol.txt). Apple asks for 15 minutes between tries after a
// 5xx and mentions nothing shorter ("Handling notification responses from APNs"); a
// first try after one minute catches the usual short outage.
type Retry struct {
	// Min is the first delay. One beyond an hour is a mistyped unit.
	Min time.Duration `key:"min" default:"1m" min:"1s" max:"1h" why:"the queue counts delays in whole seconds"`
	// Max is the longest delay. More than a day serves nobody.
	Max time.Duration `key:"max" default:"15m" min:"1s" max:"24h" why:"Apple asks for 15m after a 5xx answer"`
	// GiveUpAfter counts from when the job was put; after it the job is buried. What APNs would not
	// have kept is useless.
	GiveUpAfter time.Duration `key:"give_up_after" default:"24h" min:"1s" max:"720h" why:"APNs itself keeps a notification for 30 days at most"`
}

// Feedback says where an app's records go: what became of the pushes that will
// not arrive. The zero value is nowhere but the log.
type Feedback struct {
	// Tube is where the records lie, one a job; "" for no records. With a
	// Webhook and no tube given it is the app's name and ".feedback"; for an app whose
	// entry gives no name, its tube and ".feedback".
	Tube string `key:"tube" as:"tube"`
	// Webhook is sent what lies on Tube. Its path or query is often a secret.
	Webhook SecretURL `key:"webhook" secret:"true" as:"webhook"`
	// Secret is the key of the signature of what Webhook is sent, of at least 16
	// bytes; empty without a Webhook. After whsec_ it is base64.
	Secret Secret `key:"secret" secret:"true" as:"webhook_secret"`
	// OldSecret is the one before, with which requests are signed too while it is
	// being replaced; empty for none.
	OldSecret Secret `key:"old_secret" secret:"true" as:"webhook_secret"`
}

// Default returns the configuration of an empty file, but for Apps, which has
// one app: the values of an app without keys.
func Default() Config {
	cfg := Config{Queue: queueurl.URL{Scheme: "beanstalk", Servers: []string{"127.0.0.1:11300"}}, Apps: make([]App, 1)}
	setDefaults(configFields, &cfg)
	setDefaults(appFields, &cfg.Apps[0])
	return cfg
}

// Mock reports whether the app wants the built-in APNs stand-in.
func (a *App) Mock() bool { return a.Server == ServerMock }

// Same reports whether a running app a can go on as other: no key differs except the number
// of workers. Credentials are compared by content, so that a renewed
// certificate under the same path is a difference and a moved one is not. Why an app
// is broken is no difference.
func (a *App) Same(other *App) bool {
	for _, f := range appFields {
		if f.credential == "" && !f.live && f.value(a) != f.value(other) {
			return false
		}
	}
	return a.Addr == other.Addr &&
		a.rootsHash == other.rootsHash &&
		a.Broken() == other.Broken() &&
		a.SameCredential(other)
}

// SameCredential reports whether both use the same credential.
func (a *App) SameCredential(other *App) bool {
	return a.Certificate.Same(other.Certificate) && a.SigningKey.Same(other.SigningKey)
}
