package config

import (
	"log/slog"
	"time"

	"propeller/queue/queueurl"
)

// Default returns the configuration of an empty file, but for Apps, which has
// one app: the values of an app without keys. Every default of the program's
// configuration is in this literal.
func Default() Config {
	return Config{
		Queue:           queueurl.URL{Scheme: "beanstalk", Servers: []string{"127.0.0.1:11300"}},
		Log:             Log{Level: slog.LevelInfo, Format: FormatText, Pushes: PushesFailures},
		ShutdownTimeout: 30 * time.Second,
		Watchdog:        time.Minute,
		Apps: []App{{
			Server: "production",
			// One connection carries more than most apps ever send, and APNs
			// treats needless connections as an attack.
			Workers:     1,
			InFlight:    500,
			PushTimeout: 20 * time.Second,
			ExtraKeys:   ExtraRefuse,
			// Apple asks for 15 minutes between tries after a 5xx and tells of
			// nothing shorter ("Handling notification responses from APNs");
			// a first try after one minute catches the usual short outage.
			Retry: Retry{Min: time.Minute, Max: 15 * time.Minute, GiveUpAfter: 24 * time.Hour},
		}},
	}
}

// Limits of the keys, each with its reason.
const (
	// MaxWorkers: each worker is a connection to APNs and one to every queue
	// server. 100 carry far more than one machine can encrypt.
	MaxWorkers = 100
	// MaxInFlight: APNs usually grants 1000 streams on a connection, and
	// beanstalkd walks through all jobs reserved on a connection for each
	// command; beyond 2000 that walk is what takes the time.
	MaxInFlight = 2000

	// minTimeout: below a second a slow handshake looks like a dead server.
	minTimeout = time.Second
	// maxPushTimeout keeps a push well inside the 120 s for which its job is
	// reserved, so that the job cannot be served again meanwhile.
	maxPushTimeout = 60 * time.Second
	// maxShutdownTimeout: process managers kill long before.
	maxShutdownTimeout = 10 * time.Minute

	// minRetry: beanstalkd delays jobs by whole seconds (protocol.txt).
	minRetry = time.Second
	// maxRetryMin: a first delay beyond an hour is a mistyped unit.
	maxRetryMin = time.Hour
	// maxRetryMax: a longer pause than a day serves nobody.
	maxRetryMax = 24 * time.Hour
	// maxGiveUp: what APNs itself would not have kept is of no use any more.
	maxGiveUp = maxStored
	// maxStored is how long APNs stores a notification at most ("Viewing the
	// status of push notifications using Metrics and APNs").
	maxStored = 30 * 24 * time.Hour
	// minLife: job ages are known by whole seconds.
	minLife = time.Second

	// minWatchdog: a queue or an APNs that is only slow is no stall.
	minWatchdog = 5 * time.Second
	// maxWatchdog: a stall that is seen later is one that users report.
	maxWatchdog = time.Hour

	// maxFile bounds the configuration and certificate files: 1 MiB is
	// thousands of apps, or a bundle of every public root.
	maxFile = 1 << 20
	// maxSecretFile bounds the file of one secret.
	maxSecretFile = 64 << 10
)
