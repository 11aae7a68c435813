package apnstest

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// certRules is what a client certificate allows.
type certRules struct {
	refuse       string   // the reason every request is refused for, "" for none
	topics       []string // the topics allowed; nil: any
	defaultTopic string   // of a request without apns-topic; "" when it must be there
}

// rulesOf reads what cert allows. A certificate without Apple's extensions
// and without a UID allows any topic.
func (s *Server) rulesOf(cert *x509.Certificate) certRules {
	var r certRules
	if cert == nil {
		return r
	}
	uid := certUID(cert)
	if der, ok := extension(cert, oidTopics); ok {
		r.topics = parseTopics(der)
	} else if uid != "" {
		r.topics = []string{uid, uid + ".voip", uid + ".complication"}
		// Only a single-topic certificate has a default (Apple:
		// handling-notification-responses-from-apns, MissingTopic).
		r.defaultTopic = uid
	}
	_, sandbox := extension(cert, oidSandbox)
	_, production := extension(cert, oidProduction)
	if s.opt.Environment == "sandbox" && production && !sandbox ||
		s.opt.Environment == "production" && sandbox && !production {
		r.refuse = "BadCertificateEnvironment"
	}
	if s.opt.RefuseCert != nil {
		if reason := s.opt.RefuseCert(cert); reason != "" {
			r.refuse = reason
		}
	}
	return r
}

const (
	// A provider token older than this is refused (Apple:
	// establishing-a-token-based-connection-to-apns).
	maxTokenAge = time.Hour
	// How far ahead of our clock a provider token may be. Apple names no
	// figure; this is ours.
	maxTokenLead = 5 * time.Minute
)

// providerTokens is what a connection knows of provider tokens. It belongs to
// the connection's reader.
type providerTokens struct {
	header string    // the authorization field last accepted
	team   string    // of the first token; the connection keeps to it
	key    string    // of the first token
	issued time.Time // of the token last accepted
	since  time.Time // when it was first used here
}

// authorize returns the reason for which APNs would refuse the credentials of
// a request that arrives at now, "" for none. A client certificate counts
// before a provider token, as at APNs.
func (c *conn) authorize(h *head, now time.Time) string {
	switch {
	case c.rules.refuse != "":
		return c.rules.refuse
	case c.cert != nil:
		return ""
	case h.seen&hasAuthorization == 0:
		if c.srv.opt.AllowAnonymous {
			return ""
		}
		return "MissingProviderToken"
	}
	t := &c.in.tokens
	if h.authorization != t.header {
		if reason := c.newToken(h.authorization, now); reason != "" {
			return reason
		}
	}
	if now.Sub(t.issued) > maxTokenAge {
		return "ExpiredProviderToken"
	}
	return ""
}

// newToken checks a provider token that the connection did not use before,
// and remembers it when it is good.
func (c *conn) newToken(header string, now time.Time) string {
	scheme, jwt, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "MissingProviderToken"
	}
	team, key, issued, ok := parseJWT(jwt)
	if !ok || issued.Sub(now) > maxTokenLead {
		return "InvalidProviderToken"
	}
	t := &c.in.tokens
	switch {
	case t.team != "" && t.team != team:
		return "InvalidProviderToken"
	case t.key != "" && t.key != key:
		return "UnrelatedKeyIdInToken"
	case t.header != "" && now.Sub(t.since) < c.srv.opt.MinTokenAge:
		return "TooManyProviderTokenUpdates"
	}
	if verify := c.srv.opt.VerifyToken; verify != nil {
		if reason := verify(jwt); reason != "" {
			return reason
		}
	}
	*t = providerTokens{header: header, team: team, key: key, issued: issued, since: now}
	return ""
}

// parseJWT reads a provider token's fields (Apple:
// establishing-a-token-based-connection-to-apns). The signature is only
// measured: two numbers of 32 bytes.
func parseJWT(jwt string) (team, key string, issued time.Time, ok bool) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return
	}
	var header struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}
	var claims struct {
		Iss string          `json:"iss"`
		Iat json.RawMessage `json:"iat"` // raw: a float or a string is refused
	}
	if !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) {
		return
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 || header.Alg != "ES256" || len(header.Kid) != 10 || len(claims.Iss) != 10 {
		return
	}
	iat, err := strconv.ParseInt(string(claims.Iat), 10, 64)
	if err != nil {
		return
	}
	return claims.Iss, header.Kid, time.Unix(iat, 0), true
}

func decodePart(part string, dst any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, dst) == nil
}
