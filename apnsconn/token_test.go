package apnsconn

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// checkToken checks a provider token to the last byte and returns its iat.
func checkToken(text string, public *ecdsa.PublicKey) (iat time.Time, err error) {
	var claims jwt.MapClaims
	parsed, err := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithJSONNumber(), jwt.WithoutClaimsValidation()).
		ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) { return public, nil })
	if err != nil {
		return iat, err
	}
	number, ok := claims["iat"].(json.Number)
	seconds, err := number.Int64()
	if parsed.Header["kid"] != testKeyID || parsed.Header["alg"] != "ES256" || len(parsed.Header) != 2 ||
		claims["iss"] != testTeamID || len(claims) != 2 || !ok || err != nil {
		return iat, fmt.Errorf("header %v, claims %v", parsed.Header, claims)
	}
	return time.Unix(seconds, 0), nil
}

func verifyToken(t testing.TB, text string, public *ecdsa.PublicKey) time.Time {
	t.Helper()
	iat, err := checkToken(text, public)
	if err != nil {
		t.Fatalf("token %q: %v", text, err)
	}
	return iat
}

func TestToken(t *testing.T) {
	t.Parallel()
	k := testSigningKey(t)
	text, err := k.sign(testTime)
	if err != nil {
		t.Fatal(err)
	}
	if iat := verifyToken(t, text, &parsed(t, k).PublicKey); !iat.Equal(testTime) {
		t.Errorf("iat %v", iat)
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	if want := `{"iat":1772366400,"iss":"DEF123GHIJ"}`; err != nil || string(claims) != want {
		t.Errorf("claims %s, %v, want %s", claims, err, want)
	}
	if again, _ := k.sign(testTime); again != text {
		t.Errorf("two signatures of the same: %s, %s", text, again)
	}
}

// The numbers of a signature are 32 bytes each, also when they begin with zeros.
func TestTokenSignature(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	k := keyOf(t, private)
	shortR, shortS := 0, 0
	for i := 0; i < 3000 && shortR*shortS == 0; i++ {
		text, err := k.sign(testTime.Add(time.Duration(i) * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.RawURLEncoding.DecodeString(text[strings.LastIndexByte(text, '.')+1:])
		if err != nil || len(sig) != 64 {
			t.Fatalf("%d bytes, %v", len(sig), err)
		}
		if sig[0] != 0 && sig[32] != 0 && i > 0 {
			continue
		}
		verifyToken(t, text, &private.PublicKey)
		if sig[0] == 0 {
			shortR++
		}
		if sig[32] == 0 {
			shortS++
		}
	}
	// The signatures are the same at each run.
	if shortR*shortS == 0 {
		t.Errorf("%d and %d begin with zeros: the test shows nothing", shortR, shortS)
	}
}

// user is one process with a few connections, watched.
type user struct {
	t      *testing.T
	source *ProviderToken
	made   int64
	last   time.Time // when it made a token
	conns  []*userConn
}

type userConn struct {
	connToken
	text  string
	since time.Time // when it first used text
}

// push uses the token of one connection, and checks all the rules.
func (u *user) push(c *userConn) string {
	u.t.Helper()
	now := time.Now()
	text := c.authorization()
	if n := u.source.Mints(); n != u.made {
		if n != u.made+1 || u.made > 0 && now.Sub(u.last) < 20*time.Minute {
			u.t.Errorf("tokens %d to %d made %v after the one before", u.made+1, n, now.Sub(u.last))
		}
		u.made, u.last = n, now
	}
	if text != c.text {
		if c.text != "" && now.Sub(c.since) < 20*time.Minute {
			u.t.Errorf("a connection changed its token after %v", now.Sub(c.since))
		}
		c.text, c.since = text, now
	}
	iat := c.cur.issued
	if iat.After(now) || now.Sub(iat) > 50*time.Minute || iat.Unix()%600 != 0 {
		u.t.Errorf("at %v a token of %v is used", now, iat)
	}
	return text
}

// A week of pushes, at all paces, on connections that come and go: never two
// tokens within 20 minutes, in the process or on a connection, and none older
// than 50 minutes.
func TestTokenRules(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, seed))
			between := func(lo, hi time.Duration) time.Duration { return lo + time.Duration(rnd.Int64N(int64(hi-lo))) }
			u := &user{t: t, source: NewProviderToken(key)}
			start := time.Now()
			time.Sleep(between(0, time.Hour)) // any phase
			u.conns = []*userConn{new(userConn)}
			pace := time.Minute
			for time.Since(start) < 7*24*time.Hour && !t.Failed() {
				if rnd.IntN(100) == 0 {
					pace = between(time.Second, 3*time.Hour)
				}
				i := rnd.IntN(len(u.conns))
				if u.conns[i].source == nil || rnd.IntN(20) == 0 {
					u.conns[i] = &userConn{connToken: connToken{source: u.source}} // a new connection
				}
				if len(u.conns) < 5 {
					u.conns = append(u.conns, &userConn{connToken: connToken{source: u.source}})
				}
				u.push(u.conns[i])
				time.Sleep(between(0, pace))
			}
			if u.made < 7 {
				t.Errorf("%d tokens in a week", u.made)
			}
		})
	}
}

// Processes that were started at different times and push all the time agree
// within the hour: the same text, changed at the full and the half hour, though
// each connection keeps its own for 20 minutes.
func TestProcessesAgree(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		var users []*user
		for range 61 {
			u := &user{t: t, source: NewProviderToken(key)}
			users = append(users, u)
			for range 60 { // the next one starts a minute later
				for _, u := range users {
					if len(u.conns) == 0 {
						u.conns = append(u.conns, &userConn{connToken: connToken{source: u.source}})
					}
					u.push(u.conns[0])
				}
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Second)
		made := users[0].made
		for minute := range 4 * 60 {
			for i, u := range users {
				text := u.push(u.conns[0])
				if minute >= 60 && text != users[0].conns[0].text {
					t.Fatalf("minute %d: process %d uses another token", minute, i)
				}
				if minute >= 60 && u.conns[0].cur.issued.Unix()%1800 != 0 {
					t.Fatalf("minute %d: process %d: token of %v", minute, i, u.conns[0].cur.issued)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := users[0].made - made; n != 8 {
			t.Errorf("%d tokens in four hours, want 8", n)
		}
	})
}

// Many connections that ask at once make one token.
func TestTokenIsMadeOnce(t *testing.T) {
	t.Parallel()
	p := NewProviderToken(testSigningKey(t))
	var wg sync.WaitGroup
	texts := make([]string, 50)
	for i := range texts {
		wg.Go(func() {
			c := connToken{source: p}
			texts[i] = c.authorization()
		})
	}
	wg.Wait()
	for _, text := range texts {
		if text != texts[0] || !strings.HasPrefix(text, "bearer ") {
			t.Fatalf("%q and %q", texts[0], text)
		}
	}
	if n := p.Mints(); n != 1 {
		t.Errorf("%d tokens made", n)
	}
}

// hands are the two clocks of a machine, set by hand.
type hands struct{ moment }

func (h *hands) pass(d time.Duration)  { h.wall, h.mono = h.wall.Add(d), h.mono+d }
func (h *hands) sleep(d time.Duration) { h.wall = h.wall.Add(d) } // or is set forward
func (h *hands) read() moment          { return h.moment }

func TestTokenClocks(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	for _, c := range []struct {
		name string
		do   func(h *hands)
		new  bool
	}{
		{"nothing", func(h *hands) {}, false},
		{"19 minutes", func(h *hands) { h.pass(19 * time.Minute) }, false},
		{"29 minutes", func(h *hands) { h.pass(29*time.Minute + 59*time.Second) }, false},
		{"30 minutes", func(h *hands) { h.pass(30 * time.Minute) }, true},
		{"the machine sleeps for 10 minutes", func(h *hands) { h.sleep(10 * time.Minute) }, false},
		{"the machine sleeps for an hour", func(h *hands) { h.sleep(time.Hour) }, true},
		{"the clock is set back by a day", func(h *hands) { h.sleep(-24 * time.Hour) }, false},
		{"the clock is set back by a day, and 20 minutes pass", func(h *hands) { h.sleep(-24 * time.Hour); h.pass(20 * time.Minute) }, true},
		{"the clock is set back by 15 minutes, and 30 pass", func(h *hands) { h.sleep(-15 * time.Minute); h.pass(30 * time.Minute) }, true},
		{"the wall clock stands still for 30 minutes", func(h *hands) { h.mono += 30 * time.Minute }, true},
	} {
		h := &hands{moment{wall: testTime}}
		conn := connToken{source: newProviderToken(key, h.read)}
		conn.authorization()
		c.do(h)
		conn.authorization()
		if n := conn.source.Mints(); n > 1 != c.new {
			t.Errorf("%s: %d tokens made", c.name, n)
		}
		if issued := conn.cur.issued; c.new && issued.After(h.wall) {
			t.Errorf("%s: iat %v in the future of %v", c.name, issued, h.wall)
		}
	}
}

// A token that APNs calls expired is replaced, but not within 20 minutes.
func TestRefusedToken(t *testing.T) {
	t.Parallel()
	h := &hands{moment{wall: testTime.Add(5 * time.Minute)}}
	p := newProviderToken(testSigningKey(t), h.read)
	use := func() string { c := connToken{source: p}; return c.authorization() }
	conn := connToken{source: p}
	first := conn.authorization()
	if age, better := conn.expired(); age != 5*time.Minute || better {
		t.Errorf("age %v, another one: %v", age, better)
	}
	h.pass(20*time.Minute - 1)
	if use() != first {
		t.Error("replaced within 20 minutes")
	}
	h.pass(1)
	if age, better := conn.expired(); age != 25*time.Minute || !better {
		t.Errorf("age %v, another one: %v", age, better)
	}
	if use() == first || p.Mints() != 2 {
		t.Errorf("not replaced after 20 minutes; %d made", p.Mints())
	}
}

// One token too many: the connection goes back to the one before, as long as
// that is young enough.
func TestTooManyTokens(t *testing.T) {
	t.Parallel()
	h := &hands{moment{wall: testTime}}
	p := newProviderToken(testSigningKey(t), h.read)
	conn := connToken{source: p}
	first := conn.authorization()
	conn.tooMany() // there is no other one
	h.pass(30 * time.Minute)
	second := conn.authorization()
	if second == first {
		t.Fatal("not renewed")
	}
	conn.tooMany()
	conn.tooMany() // as pushes in flight say too
	if conn.authorization() != first || p.Mints() != 2 {
		t.Errorf("not back to the old one; %d made", p.Mints())
	}
	h.pass(20 * time.Minute)
	if conn.authorization() != second {
		t.Error("the new one is not tried again")
	}
	conn.tooMany()
	if conn.authorization() != first {
		t.Error("not back to the old one again")
	}
	h.pass(5 * time.Minute) // the old one is 55 minutes old
	if conn.authorization() != second {
		t.Error("a token is kept until it expires")
	}
	conn.tooMany()
	if conn.authorization() != second {
		t.Error("back to one that is too old")
	}
}

func BenchmarkTokenUse(b *testing.B) {
	c := connToken{source: NewProviderToken(testSigningKey(b))}
	b.ReportAllocs()
	for b.Loop() {
		c.authorization()
	}
}
