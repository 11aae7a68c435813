package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"propeller/internal/neterr"
	"propeller/queue"
)

// Keys are what signs, at least one with a Webhook.
func (f Feedback) Keys() (keys [][]byte) {
	for _, s := range []Secret{f.Secret, f.OldSecret} {
		if key, err := webhookKey(s.Reveal()); err == nil && len(key) > 0 { // both have been checked
			keys = append(keys, key)
		}
	}
	return keys
}

const (
	// webhookNone is the value of webhook that switches that of the defaults off.
	webhookNone = "none"
	// feedbackSuffix makes the feedback tube's name from the app's.
	feedbackSuffix = ".feedback"
	// minWebhookSecret: a signature is as hard to forge as its key is to guess,
	// and 128 random bits are beyond guessing.
	minWebhookSecret = 16
	// webhookSecretPrefix begins a secret that is base64 (Standard Webhooks).
	webhookSecretPrefix = "whsec_"
)

// setWebhook sets the webhook that a key gives; the text is never quoted.
func setWebhook(at *SecretURL, text string) error {
	switch text {
	case "":
		return errEmpty
	case webhookNone:
		*at = SecretURL{}
		return nil
	}
	u, err := url.Parse(text)
	if err != nil { // its text quotes the URL
		return errors.New("is not a URL: write https://host/path, and in user and password every character but letters and digits as %XX")
	}
	if why := webhookFault(u); why != "" {
		return errors.New(why)
	}
	*at = newSecretURL(u)
	return nil
}

// webhookFault says what is wrong with a webhook's URL, if anything.
func webhookFault(u *url.URL) string {
	switch port := u.Port(); {
	case u.Scheme != "http" && u.Scheme != "https":
		return "must start with https:// or http://; or be none, for no webhook"
	case u.Hostname() == "":
		return "has no host: write https://host/path"
	case port != "" && !validPort(port):
		return "the port must be from 1 to 65535"
	case u.Fragment != "":
		return "has a fragment (#…), which is never sent: remove it, or write # as %23"
	case strings.Contains(u.User.Username(), ":"):
		return "the user's name has a colon, which the Basic scheme does not allow" // RFC 7617 §2
	}
	return ""
}

// webhookKey is the key that a secret's text stands for.
func webhookKey(text string) ([]byte, error) {
	if encoded, ok := strings.CutPrefix(text, webhookSecretPrefix); ok {
		return base64.StdEncoding.DecodeString(encoded)
	}
	return []byte(text), nil
}

func setWebhookSecret(at *Secret, text string) error {
	key, err := webhookKey(text)
	switch {
	case err != nil: // its text may quote the secret
		return errors.New("what follows whsec_ must be base64, with its = at the end")
	case len(key) < minWebhookSecret:
		return fmt.Errorf("must have at least %d bytes: anyone who guesses it can forge records", minWebhookSecret)
	}
	*at = NewSecret(text)
	return nil
}

// checkFeedback completes an app's feedback and finds what does not go together.
func (p *parser) checkFeedback(d *draft) {
	f := &d.Feedback
	if d.bad["feedback.webhook"] {
		return
	}
	if f.Webhook.IsZero() {
		p.orphans(d, "feedback.webhook", func(f *field) bool { return f.tag.Get("as") == "webhook_secret" })
		f.Secret, f.OldSecret = Secret{}, Secret{} // the defaults'
		return
	}
	if !d.has("feedback.secret") && !d.has("feedback.secret"+fileSuffix) {
		p.wrong(d.at("feedback.secret"), fmt.Errorf("is missing: a webhook needs it to tell your records from forged ones: give at least %d random bytes", minWebhookSecret))
	}
	if base, of := d.feedbackBase(); !d.has("feedback.tube") && base != "" {
		f.Tube = base + feedbackSuffix
		if err := queue.CheckTube(f.Tube); err != nil {
			f.Tube = ""
			p.wrong(d.at("feedback.tube"), neterr.Reworded(fmt.Sprintf("its default, the app's %s and %q, has more than %d bytes: give one", of, feedbackSuffix, queue.MaxTubeLen), err))
		}
	}
	if u := f.Webhook.URL(); u.Scheme == "http" && !loopback(u.Hostname()) {
		d.Warnings = append(d.Warnings, "feedback.webhook is http:// to another machine: its records hold whole device tokens and go there unencrypted; use https://")
	}
}

// feedbackBase returns what the default of feedback.tube begins with, and what that is of the
// app. Without a name it is the tube, as it was before apps had names: records may lie there.
func (d *draft) feedbackBase() (base, of string) {
	if d.has("name") {
		return d.Name, "name"
	}
	return d.Tube, "tube"
}

// checkFeedbackTubes finds records that would be taken for jobs, or by the
// webhook of another app. Apps without webhooks may share a tube: each record
// tells its app and topic.
func (p *parser) checkFeedbackTubes(drafts []*draft) {
	jobs, records := map[string]*draft{}, map[string]*draft{}
	for _, d := range drafts {
		if _, ok := jobs[d.Tube]; !ok {
			jobs[d.Tube] = d
		}
	}
	for _, d := range drafts {
		f, at := d.Feedback, d.at("feedback.tube")
		if f.Tube == "" {
			continue
		}
		its := ""
		if !d.has("feedback.tube") {
			_, of := d.feedbackBase()
			its = fmt.Sprintf("its default, the app's %s and %q, is ", of, feedbackSuffix)
		}
		if other := jobs[f.Tube]; other == d {
			p.wrong(at, errors.New("also the tube of the app's jobs: its workers would take records for jobs"))
		} else if other != nil {
			p.wrong(at, fmt.Errorf("%sthe tube of %s's jobs (line %d): its workers would take records for jobs", its, other.path, other.line))
		}
		first, ok := records[f.Tube]
		if !ok {
			records[f.Tube] = d
		} else if !f.Webhook.IsZero() || !first.Feedback.Webhook.IsZero() {
			p.wrong(at, fmt.Errorf("%salso the feedback tube of %s (line %d): a webhook would take the other app's records: give each a tube of its own", its, first.path, first.line))
		}
	}
}

// loopback reports whether host, a name or an IP address, is this machine.
func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost") // RFC 6761 §6.3
}

// validPort reports whether a port that can be connected to is given.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
