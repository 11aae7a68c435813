package apnstest

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	devicePath    = "/3/device/"
	broadcastPath = "/4/broadcasts/apps/"

	// Sizes of bodies in bytes (Apple: generating-a-remote-notification,
	// sending-broadcast-push-notification-requests-to-apns).
	maxPayload          = 4096
	maxPayloadVoIP      = 5120
	maxPayloadBroadcast = 5120
	maxCollapseID       = 64
)

// topicSuffix is what the topic of a push type must end in
// (Apple: sending-notification-requests-to-apns; activitykit and widgetkit
// pages for the last three). ok is false for types APNs does not know.
func topicSuffix(pushType string) (suffix string, ok bool) {
	switch pushType {
	case "alert", "background", "mdm":
		return "", true
	case "voip":
		return ".voip", true
	case "complication":
		return ".complication", true
	case "fileprovider":
		return ".pushkit.fileprovider", true
	case "location":
		return ".location-query", true
	case "pushtotalk":
		return ".voip-ptt", true
	case "liveactivity":
		return ".push-type.liveactivity", true
	case "widgets":
		return ".push-type.widgets", true
	case "controls":
		return ".push-type.controls", true
	}
	return "", false
}

// validate returns the reason for which APNs would refuse the request; "" for none. It is not
// documented which of several faults APNs names.
func (c *conn) validate(h *head, r *Request) string {
	switch {
	case strings.HasPrefix(h.path, devicePath):
		return c.validatePush(h, r)
	case strings.HasPrefix(h.path, broadcastPath):
		return c.validateBroadcast(h, r)
	}
	return "BadPath"
}

func (c *conn) validatePush(h *head, r *Request) string {
	switch {
	case h.method != "POST":
		return "MethodNotAllowed"
	case r.Token == "":
		return "MissingDeviceToken"
	case strings.Contains(r.Token, "/"):
		return "BadPath"
	}
	if reason := c.authorize(h, r.At); reason != "" {
		return reason
	}
	if reason := checkHeaders(h); reason != "" {
		return reason
	}
	if reason := c.checkTopic(h); reason != "" {
		return reason
	}
	limit := maxPayload
	if h.pushType == "voip" {
		limit = maxPayloadVoIP
	}
	if reason := checkSize(r.BodySize, limit); reason != "" {
		return reason
	}
	if !validToken(r.Token) {
		return "BadDeviceToken"
	}
	return ""
}

// checkHeaders checks what does not depend on the credential.
func checkHeaders(h *head) string {
	switch {
	case h.duplicate:
		return "DuplicateHeaders"
	case h.seen&hasID != 0 && !validUUID(h.id):
		return "BadMessageId"
	case h.seen&hasExpiration != 0 && !validExpiration(h.expiration):
		return "BadExpirationDate"
	case h.seen&hasPriority != 0 && !validPriority(h.priority):
		return "BadPriority"
	case h.seen&hasCollapseID != 0 && len(h.collapseID) > maxCollapseID:
		return "BadCollapseId"
	case h.pushType == "background" && h.priority != "5":
		// Apple says that another priority is an error, and that a missing one
		// is 10, but not which reason it gives (pushing-background-updates-to-your-app).
		return "BadPriority"
	}
	return ""
}

// checkTopic checks topic, push type and credential together.
func (c *conn) checkTopic(h *head) string {
	topic := h.topic
	if h.seen&hasTopic == 0 {
		if topic = c.rules.defaultTopic; topic == "" {
			return "MissingTopic"
		}
	}
	if !validTopic(topic) {
		return "BadTopic"
	}
	if h.seen&hasPushType != 0 {
		suffix, known := topicSuffix(h.pushType)
		if !known {
			return "InvalidPushType"
		}
		if !strings.HasSuffix(topic, suffix) {
			return "TopicDisallowed"
		}
	}
	if c.rules.topics != nil && !slices.Contains(c.rules.topics, topic) {
		return "TopicDisallowed"
	}
	return ""
}

// validateBroadcast checks a publish request to a channel
// (Apple: sending-broadcast-push-notification-requests-to-apns).
func (c *conn) validateBroadcast(h *head, r *Request) string {
	app := h.path[len(broadcastPath):]
	switch {
	case h.method != "POST":
		return "MethodNotAllowed"
	case app == "" || strings.Contains(app, "/"):
		return "BadPath"
	}
	if reason := c.authorize(h, r.At); reason != "" {
		return reason
	}
	switch {
	case h.duplicate:
		return "DuplicateHeaders"
	case !validTopic(app) || strings.Contains(app, ".push-type."):
		return "TopicDisallowed"
	case h.seen&hasRequestID != 0 && !validUUID(h.requestID):
		return "BadMessageId"
	case h.seen&hasChannelID == 0:
		return "MissingChannelId"
	case !validChannel(h.channelID):
		return "BadChannelId"
	case h.seen&hasPushType == 0:
		return "MissingPushType"
	case h.pushType != "liveactivity":
		return "InvalidPushType"
	case !validExpiration(h.expiration):
		return "BadExpirationDate"
	case h.seen&hasPriority != 0 && !validPriority(h.priority):
		return "BadPriority"
	case c.rules.topics != nil && !slices.Contains(c.rules.topics, app):
		return "TopicDisallowed"
	}
	return checkSize(r.BodySize, maxPayloadBroadcast)
}

func checkSize(size, limit int) string {
	switch {
	case size == 0:
		return "PayloadEmpty"
	case size > limit:
		return "PayloadTooLarge"
	}
	return ""
}

// validToken reports whether token is whole bytes in hex. Apple fixes no length; the upper bound
// is ours. The longest one seen has 160 digits.
func validToken(token string) bool {
	if len(token) < 8 || len(token) > 400 || len(token)%2 != 0 {
		return false
	}
	for i := range len(token) {
		if !isHex(token[i]) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// validUUID reports whether s is 8-4-4-4-12 hex digits.
func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
		} else if !isHex(s[i]) {
			return false
		}
	}
	return true
}

func validExpiration(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

func validPriority(s string) bool { return s == "10" || s == "5" || s == "1" }

// validTopic reports whether topic looks like a bundle id. Letters, digits,
// hyphens and dots are what a bundle id may hold (Apple: CFBundleIdentifier).
func validTopic(topic string) bool {
	for i := range len(topic) {
		c := topic[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return topic != "" && len(topic) <= 255
}

func validChannel(id string) bool {
	b, err := base64.StdEncoding.DecodeString(id)
	return err == nil && len(b) > 0
}

// certRules says what a client certificate allows.
type certRules struct {
	refuse       string   // the reason for which every request is refused; "" for none
	topics       []string // the topics allowed; nil: any
	defaultTopic string   // of a request without apns-topic; "" if apns-topic is required
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
	// How far ahead of our clock a provider token may be. Apple names no figure; this one is ours.
	maxTokenLead = 5 * time.Minute
)

// providerTokens is what a connection knows about provider tokens. It belongs to the
// connection's reader.
type providerTokens struct {
	header string    // the authorization field last accepted
	team   string    // of the first token; the connection keeps to it
	key    string    // of the first token
	issued time.Time // of the token last accepted
	since  time.Time // when it was first used here
}

// authorize returns the reason for which APNs would refuse the credentials of a request that
// arrives at now; "" for none. A client certificate takes precedence over a provider token, as at
// APNs.
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

// newToken checks a provider token that is new on the connection, and remembers it if it is good.
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
// establishing-a-token-based-connection-to-apns). Of the signature it checks only the length: two
// numbers of 32 bytes.
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
