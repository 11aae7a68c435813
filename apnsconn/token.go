package apnsconn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// When tokens change. Apple wants a token renewed at most once in 20 minutes and at least once
// in 60, counted from its iat claim (establishing-a-token-based-connection-to-apns). The first
// limit has been seen to apply per connection, and perhaps beyond, so it is kept twice: by the
// ProviderToken, and by each connection for itself (connToken).
//
// The figures fit together like this. A token's iat is the last full tokenStep. It is replaced
// at the first full tokenTurn that is at least minTokenUse after it was made: at an age of 20 to
// 30 minutes. A connection that begins with it just before then may keep it for minTokenUse, so
// it is never older than 50 minutes. All processes that push all the time change their token on
// the hour and the half hour, whenever they were started: they use the same token, and Apple
// sees one renewal, not one for each process.
const (
	tokenStep   = 10 * time.Minute
	tokenTurn   = 30 * time.Minute
	minTokenUse = 20 * time.Minute
	// maxTokenAge ends the use of a token on a connection before minTokenUse is over, which
	// happens only after the clock was set or the machine slept.
	maxTokenAge = 55 * time.Minute
)

// ProviderToken makes the provider tokens of one Key: signed texts that tell APNs who is
// pushing. All connections of a process with the same key should share one ProviderToken, since
// Apple refuses keys that make tokens too often (429 TooManyProviderTokenUpdates). A key that
// Apple did not limit to the sandbox or to production works for connections to both.
//
// A token is made when the first push needs it, and replaced when a push needs one after 20 to
// 30 minutes. Two processes with the same key make identical tokens: the signature has no
// randomness (RFC 6979), and the time of issue is rounded down to 10 minutes. It is never in the
// future.
//
// Its methods may be called from any goroutine.
type ProviderToken struct {
	key   *Key
	clock func() moment

	now   atomic.Pointer[token]
	mints atomic.Int64

	making sync.Mutex
}

// token is one text, and what is known about it. Only refused ever changes.
type token struct {
	authorization string // the header's value
	issued        time.Time
	made          moment
	refused       atomic.Bool // APNs called it expired
}

// moment is a point in time on both clocks.
type moment struct {
	wall time.Time     // without a monotonic reading
	mono time.Duration // since some fixed point
}

// since is the time from then to m. The two clocks disagree after the wall clock was set, or
// after the machine slept, which stops the other clock. The longer time counts: it is safer to
// take a token for too old.
func (m moment) since(then moment) time.Duration {
	return max(m.mono-then.mono, m.wall.Sub(then.wall))
}

// NewProviderToken returns the tokens of a key. The first one is made when it is needed.
func NewProviderToken(key *Key) *ProviderToken {
	start := time.Now()
	return newProviderToken(key, func() moment {
		now := time.Now()
		return moment{now.Round(0), now.Sub(start)}
	})
}

func newProviderToken(key *Key, clock func() moment) *ProviderToken {
	return &ProviderToken{key: key, clock: clock}
}

// Key returns the key.
func (p *ProviderToken) Key() *Key { return p.key }

// Mints is how many tokens have been made.
func (p *ProviderToken) Mints() int64 { return p.mints.Load() }

// String names the key.
func (p *ProviderToken) String() string { return "provider token of " + p.key.String() }

// Format prints String for every verb, since the fields hold the private key and tokens.
func (p *ProviderToken) Format(f fmt.State, _ rune) { io.WriteString(f, p.String()) }

// MarshalText keeps the private key and tokens out of JSON and of log/slog.
func (p *ProviderToken) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// current returns the token for a connection that begins now, and makes one if necessary.
func (p *ProviderToken) current(now moment) *token {
	if t := p.now.Load(); t != nil && !t.due(now) {
		return t
	}
	p.making.Lock()
	defer p.making.Unlock()
	t := p.now.Load()
	if t != nil && !t.due(now) {
		return t // another goroutine was faster
	}
	issued := now.wall.Truncate(tokenStep)
	text, err := p.key.sign(issued)
	if err != nil {
		// No input can cause this. The old token may still work; without a token APNs answers
		// MissingProviderToken.
		if t == nil {
			t = &token{made: now, issued: issued}
		}
		return t
	}
	t = &token{authorization: "bearer " + text, issued: issued, made: now}
	p.mints.Add(1)
	p.now.Store(t)
	return t
}

// due reports whether the next push should have another token.
func (t *token) due(now moment) bool {
	switch {
	case now.since(t.made) < minTokenUse:
		return false // APNs would refuse another token now, whatever is wrong with this one
	case t.refused.Load(), now.wall.Before(t.issued):
		return true
	}
	return now.wall.Truncate(tokenTurn).After(t.issued) || t.age(now) >= tokenTurn
}

// age is the time since the token's iat.
func (t *token) age(now moment) time.Duration {
	return max(now.wall.Sub(t.issued), t.made.wall.Sub(t.issued)+now.mono-t.made.mono)
}

// sign makes a provider token (Apple: establishing-a-token-based-connection-to-apns). iat must
// be an integer, and header and claims have no other fields.
func (k *Key) sign(issued time.Time) (string, error) {
	private, err := k.private()
	if err != nil {
		return "", err
	}
	t := jwt.Token{
		Method: deterministicES256{jwt.SigningMethodES256},
		Header: map[string]any{"alg": jwt.SigningMethodES256.Alg(), "kid": k.ID},
		Claims: jwt.MapClaims{"iss": k.Team, "iat": issued.Unix()},
	}
	return t.SignedString(private)
}

// deterministicES256 is ES256 with the signature of RFC 6979, which is always the same for the
// same text. jwt's own is random.
type deterministicES256 struct{ *jwt.SigningMethodECDSA }

// Sign takes an *ecdsa.PrivateKey on P-256.
func (deterministicES256) Sign(text string, key any) ([]byte, error) {
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, jwt.ErrInvalidKeyType
	}
	digest := sha256.Sum256([]byte(text))
	der, err := private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	out := make([]byte, 64) // RFC 7518 §3.4: R and S of 32 bytes each
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// connToken is what one connection sends as authorization. It keeps a token for at least
// minTokenUse, even if the source has a newer one: a connection that begins just before a
// renewal would otherwise show APNs two tokens within minutes, and be refused
// (jchambers/pushy#811). It is under Conn.mu.
type connToken struct {
	source *ProviderToken // nil: nothing is sent
	cur    *token
	since  moment // when cur was first used here
	prev   *token // the previous one; nil for none
}

// authorization returns the value of the header, "" for none.
func (c *connToken) authorization() string {
	if c.source == nil {
		return ""
	}
	now := c.source.clock()
	latest := c.source.current(now)
	if latest != c.cur && (c.cur == nil || now.since(c.since) >= minTokenUse || c.cur.age(now) >= maxTokenAge) {
		c.prev, c.cur, c.since = c.cur, latest, now
	}
	return c.cur.authorization
}

// expired notes that APNs calls the token expired. It returns the token's age, and whether there
// is another token by now. c has sent a token.
func (c *connToken) expired() (age time.Duration, better bool) {
	c.cur.refused.Store(true)
	now := c.source.clock()
	return c.cur.age(now), c.source.current(now) != c.cur
}

// tooMany goes back to the previous token, because APNs says that tokens change too often.
// Without a previous token, or if that is too old, nothing changes.
func (c *connToken) tooMany() {
	if c.prev == nil {
		return
	}
	if now := c.source.clock(); c.prev.age(now) < maxTokenAge {
		c.prev, c.cur, c.since = nil, c.prev, now
	}
}

// ClockError says that this machine's clock is far from APNs'. Provider tokens
// carry the time they were made, so that APNs refuses good ones then.
type ClockError struct {
	Skew    time.Duration // APNs' clock less ours: positive when ours is behind
	AtLeast bool          // it may be more
}

func (e *ClockError) Error() string {
	where, least := "behind", ""
	if e.Skew < 0 {
		where = "ahead of"
	}
	if e.AtLeast {
		least = "at least "
	}
	minutes := e.Skew.Abs().Round(time.Minute) / time.Minute
	return fmt.Sprintf("this machine's clock is %s%d minutes %s APNs': set it, best by NTP", least, minutes, where)
}

// maxSkew is the difference from APNs' clock beyond which the local clock is blamed. A correct clock
// is within seconds; the age of a token leaves 10 minutes.
const maxSkew = 5 * time.Minute

// skewOf is how far a date header is ahead of our clock; 0 if it is missing or malformed.
func skewOf(date string) time.Duration {
	t, err := http.ParseTime(date)
	if err != nil {
		return 0
	}
	return time.Until(t)
}

// tokenLife is the age at which APNs refuses a token (Apple:
// establishing-a-token-based-connection-to-apns).
const tokenLife = time.Hour

// tokenAnswer decides what p's answer means for the provider token, and for the clock that the
// token was made by. mu is held.
func (c *Conn) tokenAnswer(p *push, o *Outcome) {
	if c.token.source == nil {
		return
	}
	switch o.Reason {
	case "TooManyProviderTokenUpdates":
		c.token.tooMany()
	case "InvalidProviderToken":
		o.Err = clockFault(p.skew, 0)
	case "ExpiredProviderToken":
		age, better := c.token.expired()
		o.Err = clockFault(p.skew, tokenLife-age)
		if c.fresh && !better {
			// The connection is as new as the token, so another connection would not help: do
			// not repeat this with every push.
			o.Class = Credential
		}
	}
}

// clockFault says what a refused token shows about the clock; nil if the clock may be right.
// skew is by the answer's date, 0 without one. behind is how far APNs' clock must be ahead for
// the token to be expired.
func clockFault(skew, behind time.Duration) error {
	switch {
	case skew.Abs() > maxSkew:
		return &ClockError{skew, false}
	case skew == 0 && behind > maxSkew:
		return &ClockError{behind, true}
	}
	return nil
}
