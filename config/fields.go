package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/pemfile"
	"propeller/queue"
)

// field is one key with how its text gets into a T.
type field[T any] struct {
	key    string                 // dotted: "retry.min"
	set    func(*T, string) error // errors say what is wrong and what to do, without the text
	secret bool                   // never quoted; key_file names a file with it
	path   bool                   // set gets a path that can be opened
	cred   bool                   // part of a credential; like secrets, not read WithoutCredentials
	own    bool                   // one app's own: not in defaults
}

// globalFields returns the keys at the top that hold one value each.
func globalFields() []field[Config] {
	return append([]field[Config]{
		{key: "log.level", set: func(c *Config, s string) error { return setLevel(&c.Log.Level, s) }},
		{key: "log.format", set: word(func(c *Config) *string { return &c.Log.Format }, FormatText, FormatJSON)},
		{key: "log.pushes", set: word(func(c *Config) *string { return &c.Log.Pushes }, PushesFailures, PushesAll, PushesNone)},
		{key: "shutdown_timeout", set: duration(func(c *Config) *time.Duration { return &c.ShutdownTimeout },
			minTimeout, maxShutdownTimeout, "it bounds the drain at shutdown")},
		{key: "watchdog", set: duration(func(c *Config) *time.Duration { return &c.Watchdog },
			minWatchdog, maxWatchdog, "it finds apps that have stopped, and cannot be switched off")},
		{key: "state_dir", path: true, set: plain(func(c *Config) *string { return &c.StateDir })},
	}, httpFields()...)
}

// appFields returns the keys of an app.
func appFields() []field[App] {
	return []field[App]{
		{key: "topic", own: true, set: name(func(a *App) *string { return &a.Topic })},
		{key: "tube", own: true, set: name(func(a *App) *string { return &a.Tube })},
		{key: "server", set: setServer},
		{key: "cert", path: true, cred: true, set: plain(func(a *App) *string { return &a.Cert })},
		{key: "cert_key", path: true, cred: true, set: plain(func(a *App) *string { return &a.CertKey })},
		{key: "cert_password", secret: true, set: func(a *App, s string) error { a.CertPassword = NewSecret(s); return nil }},
		{key: "key", path: true, cred: true, set: plain(func(a *App) *string { return &a.Key })},
		{key: "key_id", cred: true, set: plain(func(a *App) *string { return &a.KeyID })},
		{key: "team_id", cred: true, set: plain(func(a *App) *string { return &a.TeamID })},
		{key: "ca_file", path: true, cred: true, set: plain(func(a *App) *string { return &a.CAFile })},
		{key: "proxy", secret: true, set: setProxy}, // may hold a password
		{key: "workers", set: number(func(a *App) *int { return &a.Workers },
			1, MaxWorkers, "each is a connection to APNs and one to the queue")},
		{key: "in_flight", set: number(func(a *App) *int { return &a.InFlight },
			1, MaxInFlight, "beyond that the queue's cost per job grows: give more workers instead")},
		{key: "push_timeout", set: duration(func(a *App) *time.Duration { return &a.PushTimeout },
			minTimeout, maxPushTimeout, "a push must end well before its job's reservation of 120s does")},
		{key: "retry.min", set: duration(func(a *App) *time.Duration { return &a.Retry.Min },
			minRetry, maxRetryMin, "the queue counts delays in whole seconds")},
		{key: "retry.max", set: duration(func(a *App) *time.Duration { return &a.Retry.Max },
			minRetry, maxRetryMax, "Apple asks for 15m after a 5xx answer")},
		{key: "retry.give_up_after", set: duration(func(a *App) *time.Duration { return &a.Retry.GiveUpAfter },
			minRetry, maxGiveUp, "APNs itself keeps a notification for 30 days at most")},
		{key: "expiration", set: duration(func(a *App) *time.Duration { return &a.Expiration },
			minLife, maxStored, "APNs keeps a notification for 30 days at most")},
		{key: "ttl", set: duration(func(a *App) *time.Duration { return &a.TTL },
			minLife, maxStored, "APNs itself keeps a notification for 30 days at most")},
		{key: "extra_keys", set: word(func(a *App) *string { return &a.ExtraKeys }, ExtraRefuse, ExtraIgnore)},
		{key: "feedback.tube", set: name(func(a *App) *string { return &a.Feedback.Tube })},
		{key: "feedback.webhook", secret: true, set: setWebhook}, // may hold a password
		{key: "feedback.secret", secret: true, set: webhookSecret(func(f *Feedback) *Secret { return &f.Secret })},
		{key: "feedback.old_secret", secret: true, set: webhookSecret(func(f *Feedback) *Secret { return &f.OldSecret })},
	}
}

var errEmpty = errors.New("is empty: give a value or remove the key")

// assign sets the fields that l gives. It returns the keys that were given and
// could not be set, so that nothing is checked that builds on them.
func assign[T any](p *parser, l layer, fields []field[T], dst *T) (bad map[string]bool) {
	bad = map[string]bool{}
	for _, f := range fields {
		if !assignOne(p, l, f, dst) {
			bad[f.key] = true
		}
	}
	return bad
}

// assignOne sets one field and reports whether that went well; a field that is
// not given does.
func assignOne[T any](p *parser, l layer, f field[T], dst *T) bool {
	if p.bare && (f.secret || f.cred) {
		return true
	}
	if f.secret {
		e, text, given, ok := p.secret(l, f.key)
		if ok && given {
			if err := f.set(dst, text); err != nil {
				p.wrong(e, err)
				return false
			}
		}
		return ok
	}
	e, given := l[f.key]
	if !given {
		return true
	}
	text, ok := p.text(e)
	if !ok {
		return false
	}
	if text == "" {
		p.wrong(e, errEmpty)
		return false
	}
	if f.path {
		if pemfile.Holds(text) {
			p.wrong(e, errors.New("holds the key or certificate itself: give the path of a file with it"))
			return false
		}
		text = p.path(text)
	}
	if err := f.set(dst, text); err != nil {
		p.wrong(e, err)
		return false
	}
	return true
}

// hint adds to a missing file where it was looked for.
func (p *parser) hint(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(path) && p.file != "" {
		return errCause{err.Error() + ": relative paths start at the folder of this file", err}
	}
	return err
}

// setServer takes the names in capitals, too: production is what it was where
// Production was.
func setServer(a *App, s string) error {
	for _, name := range []string{apnsconn.Production.String(), apnsconn.Sandbox.String(), ServerMock} {
		if strings.EqualFold(s, name) {
			s = name
		}
	}
	a.Server = s
	return nil
}

func plain[T any](at func(*T) *string) func(*T, string) error {
	return func(t *T, s string) error {
		*at(t) = s
		return nil
	}
}

// name sets a topic or a tube. A topic must be a tube name too, since it is the
// default of tube; all that Apple gives out are.
func name[T any](at func(*T) *string) func(*T, string) error {
	return func(t *T, s string) error {
		if err := queue.CheckTube(s); err != nil {
			return errCause{fmt.Sprintf("must be letters, digits, '-', '_' and single inner dots, not start with '-', and have at most %d bytes", queue.MaxTubeLen), err}
		}
		*at(t) = s
		return nil
	}
}

func word[T any](at func(*T) *string, words ...string) func(*T, string) error {
	return func(t *T, s string) error {
		if !slices.Contains(words, s) {
			return errors.New("must be " + either(words))
		}
		*at(t) = s
		return nil
	}
}

func number[T any](at func(*T) *int, lo, hi int, why string) func(*T, string) error {
	return func(t *T, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("must be a whole number from %d to %d: %s", lo, hi, why)
		}
		*at(t) = n
		return nil
	}
}

func duration[T any](at func(*T) *time.Duration, lo, hi time.Duration, why string) func(*T, string) error {
	return func(t *T, s string) error {
		d, err := time.ParseDuration(s)
		if err != nil {
			return errors.New("must be a number with a unit, like 30s, 15m or 24h")
		}
		if d < lo || d > hi {
			return fmt.Errorf("must be from %s to %s: %s", short(lo), short(hi), why)
		}
		*at(t) = d
		return nil
	}
}

func setLevel(at *slog.Level, s string) error {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	words := make([]string, len(levels))
	for i, l := range levels {
		words[i] = strings.ToLower(l.String())
	}
	i := slices.Index(words, s)
	if i < 0 {
		return errors.New("must be " + either(words))
	}
	*at = levels[i]
	return nil
}

// either is "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// short is a duration as people write it: 15m, not 15m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
