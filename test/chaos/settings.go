package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"
)

// configName is the daemon's configuration, stateDir the folder it keeps its
// state in.
const (
	configName = "propeller.yaml"
	stateDir   = "state"
)

// settings are what the hand changes in the daemon's configuration.
type settings struct {
	apps     map[string]appSettings // the busy ones, by topic: sleepers are left as they are
	secret   int                    // which of hookSecrets signs
	hookPath string
	watchdog time.Duration
}

type appSettings struct {
	workers, inFlight int
	pushTimeout       time.Duration
	retryMax          time.Duration
	ttl               time.Duration // the app's default; 0: none
	wrong             bool          // its server is that of another environment
	removed           bool
}

func usual() settings {
	s := settings{apps: make(map[string]appSettings), hookPath: "/records", watchdog: 5 * time.Second}
	for i, a := range apps() {
		// With few in flight APNs has soon refused all of them.
		s.apps[a.topic] = usualApp([]int{10, 100}[i%2])
	}
	return s
}

func usualApp(inFlight int) appSettings {
	return appSettings{workers: 2, inFlight: inFlight, pushTimeout: 2 * time.Second, retryMax: 5 * time.Second}
}

// hookSecrets are the keys of the webhook's signatures. The receiver knows
// both: a request may be on its way while they change.
func hookSecrets() []string {
	return []string{"the first secret of the webhook", "the other secret of the webhook"}
}

// pick is one of some values.
func pick[T any](rng *rand.Rand, some ...T) T { return some[rng.IntN(len(some))] }

// change is one way in which the hand changes the settings. It says what it did.
type change struct {
	perMille int
	do       func(rng *rand.Rand, s *settings, topic string, a *appSettings) string
}

func changes() []change {
	return []change{
		{220, func(rng *rand.Rand, _ *settings, topic string, a *appSettings) string {
			a.workers = 1 + rng.IntN(4)
			return fmt.Sprintf("%s workers %d", topic, a.workers)
		}},
		{220, func(rng *rand.Rand, _ *settings, topic string, a *appSettings) string {
			a.inFlight = pick(rng, 1, 10, 100, 500)
			return fmt.Sprintf("%s in_flight %d", topic, a.inFlight)
		}},
		{80, func(rng *rand.Rand, _ *settings, topic string, a *appSettings) string {
			a.pushTimeout = pick(rng, time.Second, 2*time.Second, 3*time.Second)
			return fmt.Sprintf("%s push_timeout %v", topic, a.pushTimeout)
		}},
		{80, func(rng *rand.Rand, _ *settings, topic string, a *appSettings) string {
			a.retryMax = pick(rng, 2*time.Second, 5*time.Second, 8*time.Second)
			return fmt.Sprintf("%s retry.max %v", topic, a.retryMax)
		}},
		{80, func(rng *rand.Rand, _ *settings, topic string, a *appSettings) string {
			a.ttl = pick(rng, 0, 12*time.Hour) // never past in a run
			return fmt.Sprintf("%s ttl %v", topic, a.ttl)
		}},
		{60, func(rng *rand.Rand, s *settings, _ string, _ *appSettings) string {
			s.secret = (s.secret + 1) % len(hookSecrets())
			return fmt.Sprintf("secret %d of the webhook", s.secret)
		}},
		{60, func(rng *rand.Rand, s *settings, _ string, _ *appSettings) string {
			s.hookPath = pick(rng, "/records", "/other")
			return "webhook " + s.hookPath
		}},
		{40, func(rng *rand.Rand, s *settings, _ string, _ *appSettings) string {
			s.watchdog = pick(rng, 5*time.Second, 7*time.Second)
			return fmt.Sprintf("watchdog %v", s.watchdog)
		}},
		{160, func(_ *rand.Rand, s *settings, topic string, a *appSettings) string {
			if s.serving() == 1 {
				return "nothing"
			}
			a.removed = true
			return "removes " + topic
		}},
	}
}

// serving counts the apps that are not removed.
func (s settings) serving() int {
	n := 0
	for _, a := range s.apps {
		if !a.removed {
			n++
		}
	}
	return n
}

func (s settings) clone() settings {
	s.apps = maps.Clone(s.apps)
	return s
}

// changed is s with one thing different.
func (s settings) changed(rng *rand.Rand) (settings, string) {
	s = s.clone()
	topic := pick(rng, apps()...).topic
	a := s.apps[topic]
	if a.removed {
		a.removed = false
		s.apps[topic] = a
		return s, "adds " + topic
	}
	shares := make([]share[change], 0, len(changes()))
	for _, c := range changes() {
		shares = append(shares, share[change]{c, c.perMille})
	}
	what := draw(rng, shares).do(rng, &s, topic, &a)
	s.apps[topic] = a
	return s, what
}

// misled is s with an app that pushes to the wrong environment.
func (s settings) misled(rng *rand.Rand) (settings, string) {
	s = s.clone()
	topic := pick(rng, apps()...).topic
	a := s.apps[topic]
	a.wrong, a.removed = true, false
	s.apps[topic] = a
	return s, topic
}

// righted is s with every app in its environment.
func (s settings) righted() settings {
	s = s.clone()
	for topic, a := range s.apps {
		a.wrong = false
		s.apps[topic] = a
	}
	return s
}

// complete is s with every app, in its environment.
func (s settings) complete() settings {
	s = s.righted()
	for topic, a := range s.apps {
		a.removed = false
		s.apps[topic] = a
	}
	return s
}

// yaml is the configuration file. Times are short, so that a minute holds many
// tries of a job.
func (s settings) yaml(at *site) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `queue: %s
state_dir: %s
watchdog: %v
log: {level: debug, format: json, pushes: all}
shutdown_timeout: %v
defaults:
  ca_file: apns.pem
apps:
`, at.queueURL, stateDir, s.watchdog, shutdownTimeout)
	for _, a := range apps() {
		if !s.apps[a.topic].removed {
			s.app(&b, at, a)
		}
	}
	for _, a := range allApps(at.apps)[len(apps()):] {
		s.app(&b, at, a)
	}
	return []byte(b.String())
}

func (s settings) app(b *strings.Builder, at *site, a app) {
	set, busy := s.apps[a.topic]
	if !busy {
		set = usualApp(100)
	}
	server := at.apnsAddr
	if set.wrong {
		server = at.wrongAddr
	}
	fmt.Fprintf(b, `  - topic: %s
    tube: %s
    cert: %s.pem
    server: https://%s
    workers: %d
    in_flight: %d
    push_timeout: %v
    retry: {min: 1s, max: %v, give_up_after: 24h}
`, a.topic, a.tube, a.topic, server, set.workers, set.inFlight, set.pushTimeout, set.retryMax)
	if set.ttl > 0 {
		fmt.Fprintf(b, "    ttl: %v\n", set.ttl)
	}
	switch {
	case a.webhook: // its tube's name is the default
		fmt.Fprintf(b, "    feedback: {webhook: \"http://%s%s\", secret: %s}\n", at.hookAddr, s.hookPath, hookSecrets()[s.secret])
	case a.feedback != "":
		fmt.Fprintf(b, "    feedback: {tube: %s}\n", a.feedback)
	}
}
