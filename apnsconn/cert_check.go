package apnsconn

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// renewAhead is how long before the expiry Check begins to warn. Apple's certificates are valid
// for a year, and somebody has to renew them by hand.
const renewAhead = 30 * 24 * time.Hour

// Check says whether the certificate works for a topic and an environment at a time. The topic
// may be a bundle id, or have the suffix of a push type.
//
// It does not work if it is expired or not yet valid, if Apple made it for other topics or for
// the other environment, or if the topic's push type does not work with certificates. err then
// says why and what to do. Several faults are joined by errors.Join; each is a
// *CertificateError.
//
// The warnings are whole sentences that do not name the file: about an expiry within 30 days,
// about topics that are only partly served, and about a certificate without Apple's marks, such
// as one made for tests. Such a certificate is not checked for an environment, and for a topic
// only if it has a UID.
func (c *Certificate) Check(topic string, env Environment, now time.Time) (warnings []string, err error) {
	k := check{cert: c}
	k.apple()
	k.time(now)
	k.topic(topic)
	k.environment(env)
	return k.warnings, errors.Join(k.faults...)
}

// For returns the certificate of c's file that is best for a topic and an environment at a time.
// It prefers certificates that work, then those without a warning for the topic, then the one
// that expires last. If there was a choice, why is a sentence that says which one was chosen.
func (c *Certificate) For(topic string, env Environment, now time.Time) (best *Certificate, why string) {
	if len(c.all) < 2 {
		return c, ""
	}
	best = slices.MinFunc(c.all, func(a, b *Certificate) int {
		return cmp.Or(slices.Compare(a.misfits(topic, env, now), b.misfits(topic, env, now)), b.NotAfter.Compare(a.NotAfter))
	})
	return best, fmt.Sprintf("%.*q has %d certificates with their key: the one that expires on %s is used (serial number %s)",
		maxQuoted, filepath.Base(c.File), len(c.all), minute(best.NotAfter), best.serial)
}

// misfits counts what is wrong with a certificate: faults of the topic, then all faults, then
// warnings except the one about its expiry.
func (c *Certificate) misfits(topic string, env Environment, now time.Time) []int {
	k := check{cert: c}
	k.apple()
	k.topic(topic)
	ofTopic, warnings := len(k.faults), len(k.warnings)
	k.environment(env)
	k.time(now)
	return []int{ofTopic, len(k.faults), warnings}
}

// check collects what is found out about one certificate.
type check struct {
	cert     *Certificate
	warnings []string
	faults   []error
}

func (k *check) warn(format string, args ...any) {
	k.warnings = append(k.warnings, fmt.Sprintf(format, args...))
}

func (k *check) fault(format string, args ...any) {
	k.faults = append(k.faults, &CertificateError{File: k.cert.File, Why: fmt.Sprintf(format, args...)})
}

func (k *check) apple() {
	if !k.cert.Apple {
		k.warn("not an Apple push certificate: it has none of Apple's marks, and Apple's servers will not accept it")
	}
}

func (k *check) time(now time.Time) {
	from, until := k.cert.NotBefore, k.cert.NotAfter
	left := until.Sub(now)
	switch {
	case now.Before(from):
		k.fault("is not valid before %s: check this machine's clock, which says %s", minute(from), minute(now))
	case now.After(until):
		k.fault("expired on %s: make a new one in Apple's developer account and put it in its place", minute(until))
	case left < renewAhead:
		k.warn("expires on %s, in %d days: renew it in Apple's developer account", minute(until), int(left/(24*time.Hour)))
	}
}

func (k *check) topic(topic string) {
	served := k.served()
	if t := pushTypeOfTopic(topic); t != nil && t.tokenOnly {
		k.fault("topic %q does not work with certificates: pushes of type %s need a provider token (.p8 key)", topic, t.name)
		return
	}
	if len(served) == 0 || slices.Contains(served, topic) {
		return
	}
	base := bundleOf(topic)
	switch {
	case slices.Contains(served, base):
		k.warn("topic %q is not listed in it, only %s: APNs may refuse pushes of that type", topic, quoted(served))
	case slices.ContainsFunc(served, func(s string) bool { return bundleOf(s) == base }):
		k.warn("serves only %s: APNs will refuse other pushes to %q", quoted(served), topic)
	default:
		set := "it"
		if len(served) > 1 {
			set = "one of these"
		}
		k.fault("is for %s, not for topic %q: use the certificate of that app, or set the topic to %s", quoted(served), topic, set)
	}
}

// served returns all topics that the certificate names.
func (k *check) served() []string {
	uid := k.cert.UID
	if uid == "" || slices.Contains(k.cert.Topics, uid) {
		return k.cert.Topics
	}
	return append([]string{uid}, k.cert.Topics...)
}

func (k *check) environment(env Environment) {
	c := k.cert
	switch {
	case !c.Production && !c.Sandbox: // it does not say
	case env == Production && !c.Production:
		k.fault("is for the sandbox only: use a production certificate, or the sandbox server")
	case env == Sandbox && !c.Sandbox:
		k.fault("is for production only: use a sandbox certificate, or the production server")
	}
}

// bundleOf returns a topic without the suffix of its push type.
func bundleOf(topic string) string {
	if t := pushTypeOfTopic(topic); t != nil {
		return strings.TrimSuffix(topic, t.suffix)
	}
	return topic
}

// maxQuoted bounds what is quoted of a name in a certificate, in characters. Such a name may be
// as long as the file, and goes into logs and answers.
const maxQuoted = 100

// quoted lists topics for people; of many, only the first few.
func quoted(topics []string) string {
	const most = 5
	var b strings.Builder
	for i, t := range topics {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(topics)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.*q", maxQuoted, t)
	}
	return b.String()
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
