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

// When tokens change. Apple wants a token renewed at most every 20 and at least
// every 60 minutes, counted from its iat claim
// (establishing-a-token-based-connection-to-apns). The first limit has been
// seen to count per connection, and perhaps beyond, so it is kept twice: by the
// ProviderToken, and by each connection for itself (connToken).
//
// The figures fit together like this. A token's iat is the last full tokenStep
// and it gives way at the first full tokenTurn that is minTokenUse or more after
// it was made: at an age of 20 to 30 minutes. So a connection that begins with
// it just before may keep it for minTokenUse, and it is never older than 50
// minutes. And all processes that push all the time change at the full and the
// half hour, whenever they were started: they use the same token, and Apple
// sees one renewal, not one for each process.
const (
	tokenStep   = 10 * time.Minute
	tokenTurn   = 30 * time.Minute
	minTokenUse = 20 * time.Minute
	// maxTokenAge ends the use of a token on a connection though minTokenUse is
	// not over: only after the clock was set or the machine slept.
	maxTokenAge = 55 * time.Minute
)

// ProviderToken makes the provider tokens of one Key: signed texts that tell
// APNs who is pushing. Every connection with the same key should share one, in
// the whole process, since Apple refuses keys that make tokens too often (429
// TooManyProviderTokenUpdates). A key that Apple did not limit to the sandbox or
// to production may serve connections to both.
//
// A token is made when the first push needs it, and replaced when one does
// after 20 to 30 minutes. Two processes with the same key make the same tokens,
// to the letter: no randomness goes into the signature (RFC 6979), and the time
// of issue is rounded down to 10 minutes. It is never in the future.
//
// Its methods may be called from any goroutine.
type ProviderToken struct {
	key   *Key
	clock func() moment

	now   atomic.Pointer[token]
	mints atomic.Int64

	making sync.Mutex
}

// token is one text, and what is known about it. All but refused never changes.
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

// since is the time from then to m. The two clocks disagree when the wall clock
// was set, or when the machine slept, which stops the other one: the longer of
// the two is taken, for a token is too old rather sooner than later.
func (m moment) since(then moment) time.Duration {
	return max(m.mono-then.mono, m.wall.Sub(then.wall))
}

// NewProviderToken returns the tokens of a key. It makes none before it is
// asked for one.
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

// Format prints String for every verb, since the fields hold the private key
// and tokens.
func (p *ProviderToken) Format(f fmt.State, _ rune) { io.WriteString(f, p.String()) }

// MarshalText keeps the private key and tokens out of JSON and of log/slog.
func (p *ProviderToken) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// current returns the token for a connection that begins now, making one if
// need be.
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
		// No input of ours can cause it. The old token may still do; without
		// one APNs says that it misses it.
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
		return false // APNs would not have another one, whatever is wrong with this
	case t.refused.Load(), now.wall.Before(t.issued):
		return true
	}
	return now.wall.Truncate(tokenTurn).After(t.issued) || t.age(now) >= tokenTurn
}

// age is the time since the token's iat.
func (t *token) age(now moment) time.Duration {
	return max(now.wall.Sub(t.issued), t.made.wall.Sub(t.issued)+now.mono-t.made.mono)
}

// sign makes a provider token (Apple:
// establishing-a-token-based-connection-to-apns). iat must be an integer, and
// the header and claims have no other fields.
func (k *Key) sign(issued time.Time) (string, error) {
	t := jwt.Token{
		Method: deterministicES256{jwt.SigningMethodES256},
		Header: map[string]any{"alg": jwt.SigningMethodES256.Alg(), "kid": k.ID},
		Claims: jwt.MapClaims{"iss": k.Team, "iat": issued.Unix()},
	}
	return t.SignedString(k.private)
}

// deterministicES256 is ES256 with the signature of RFC 6979, which is always the
// same for the same text. jwt's own takes a random one.
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

// connToken is what one connection sends as authorization. It keeps to a token
// for minTokenUse at least, also if the source has a newer one: a connection
// that begins just before a renewal would otherwise show APNs two tokens within
// minutes, and be refused (jchambers/pushy#811). It belongs to Conn.mu.
type connToken struct {
	source *ProviderToken // nil: nothing is sent
	cur    *token
	since  moment // when cur was first used here
	prev   *token // the one before; nil when there was none
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

// expired notes that APNs calls the token expired. It returns how old the token
// is, and whether there is another one by now. c has sent one.
func (c *connToken) expired() (age time.Duration, better bool) {
	c.cur.refused.Store(true)
	now := c.source.clock()
	return c.cur.age(now), c.source.current(now) != c.cur
}

// tooMany goes back to the token before, because APNs calls the new one one too
// many; if there is none, or it is too old, all stays as it is.
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

// maxSkew is the difference from APNs' clock that is worth a word. An honest
// clock is within seconds; the age of a token leaves 10 minutes.
const maxSkew = 5 * time.Minute

// skewOf is how far a date header's time is ahead of ours; 0 if there is none
// that makes sense.
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

// tokenAnswer draws the conclusions of p's answer for the provider token, and
// for the clock it was made by. mu is held.
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
			// The connection is as fresh as the token: no other one can do
			// better, so this is not to be tried push by push.
			o.Class = Credential
		}
	}
}

// clockFault says what a refused token tells of the clock: skew is what the
// answer's date says, 0 without one, and behind how much later APNs' clock must
// be for the token to be expired. It is nil if that is within reason.
func clockFault(skew, behind time.Duration) error {
	switch {
	case skew.Abs() > maxSkew:
		return &ClockError{skew, false}
	case skew == 0 && behind > maxSkew:
		return &ClockError{behind, true}
	}
	return nil
}
