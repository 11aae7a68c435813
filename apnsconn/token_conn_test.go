package apnsconn

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// authorizations are the tokens of all pushes seen so far, in order.
func (p *peer) authorizations() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.order {
		for _, f := range p.streams[id].fields {
			if f.Name == "authorization" {
				out = append(out, f.Value)
			}
		}
	}
	return out
}

// refuse answers a stream by a reason and, if any, further fields.
func (p *peer) refuse(stream uint32, status, reason string, fields ...string) {
	p.do(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true,
			BlockFragment: block(append([]string{":status", status}, fields...)...)})
		fr.WriteData(stream, true, fmt.Appendf(nil, `{"reason":%q}`, reason))
	})
}

// A live connection follows the renewals, each push with one token.
func TestTokenOnTheWire(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		source := NewProviderToken(key)
		withToken(t, source, func(c *Conn, p *peer) {
			start := time.Now()
			o := newOutcomes(t)
			for i := range 3 * 60 { // one a minute
				o.send(c, i, 1)
				p.settle()
				p.answer("200", uint32(2*i+1))
				time.Sleep(time.Minute)
			}
			o.want(map[Class]int{Delivered: 180})
			got := p.authorizations()
			if len(got) != 180 {
				t.Fatalf("%d pushes with a token", len(got))
			}
			last := 0
			for i, a := range got {
				text, ok := strings.CutPrefix(a, "bearer ")
				if !ok {
					t.Fatalf("authorization %q", a)
				}
				iat := verifyToken(t, text, &parsed(t, key).PublicKey)
				at := start.Add(time.Duration(i) * time.Minute)
				if age := at.Sub(iat); age < 0 || age > 50*time.Minute {
					t.Errorf("push %d has a token %v old", i, age)
				}
				if i > 0 && a != got[i-1] {
					if i-last < 20 {
						t.Errorf("renewed at push %d and %d", last, i)
					}
					last = i
				}
			}
			if n := source.Mints(); n < 6 || n > 8 {
				t.Errorf("%d tokens in three hours", n)
			}
		})
	})
}

// withToken runs f with a connection that pushes with tokens of source. It is
// for use in a bubble, as bubble is.
func withToken(t *testing.T, source *ProviderToken, f func(c *Conn, p *peer)) {
	t.Helper()
	p, nc := newPeer(t)
	p.send(func(fr *http2.Framer) {
		fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
	})
	c, err := newConn(t.Context(), Config{Token: source, PingAfter: 24 * time.Hour}.withDefaults(), "api.push.apple.com", nc, nc)
	if err != nil {
		t.Fatal(err)
	}
	p.settle()
	f(c, p)
	c.Close()
	p.nc.Close()
}

// The token costs one byte per push while it stays the same.
func TestTokenHeaderBlockSize(t *testing.T) {
	t.Parallel()
	const pushes = 500
	source := NewProviderToken(testSigningKey(t))
	conn := connToken{source: source}
	size := func(authorization func(i int) string) int {
		h := newHeaderEncoder("api.push.apple.com")
		dec := hpack.NewDecoder(4096, nil)
		total := 0
		for i := range pushes {
			n := testPush()
			n.ID = fmt.Sprintf("123e4567-e89b-12d3-a456-%012x", i*7919)
			n.Priority = 10
			h.authorization = authorization(i)
			b := h.encode(n)
			if fields, err := dec.DecodeFull(b); err != nil || h.authorization != "" && fields[5].Value != h.authorization {
				t.Fatal(fields, err)
			}
			total += len(b)
		}
		return total
	}
	without := size(func(int) string { return "" })
	with := size(func(int) string { return conn.authorization() })
	if extra := with - without; extra < pushes || extra > pushes+300 {
		t.Errorf("%d bytes for the token in %d pushes, want one each and the text once", extra, pushes)
	}
	if mean := with / pushes; mean > 95 {
		t.Errorf("%d bytes per header block", mean)
	}
	renewed := size(func(i int) string { return conn.authorization() + strings.Repeat("x", i/250) })
	if extra := renewed - with; extra > 300 {
		t.Errorf("%d bytes for a renewal", extra)
	}
}

// The peer may take no table at all, and no long header lists.
func TestTokenWithoutHeaderTable(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		withToken(t, NewProviderToken(key), func(c *Conn, p *peer) {
			p.do(settings(http2.SettingHeaderTableSize, 0))
			p.open(c)
			enough := newHeaderEncoder("api.push.apple.com").listSize(testPush()) // but for the token
			p.do(settings(http2.SettingMaxHeaderListSize, uint32(enough)))
			o := newOutcomes(t)
			o.send(c, 0, 1)
			p.settle()
			o.want(map[Class]int{NotSent: 1})
			if got := p.authorizations(); len(got) != 1 {
				t.Errorf("%d pushes with a token", len(got))
			}
		})
	})
}

// An expired token costs the connection, and the next one has another token if
// there may be one.
func TestExpiredTokenReplaced(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		source := NewProviderToken(key)
		var first string
		withToken(t, source, func(c *Conn, p *peer) {
			p.open(c)
			first = p.authorizations()[0]
			time.Sleep(25 * time.Minute)
			o := newOutcomes(t)
			o.send(c, 0, 2)
			p.settle()
			p.refuse(3, "403", "ExpiredProviderToken")
			if c.Usable() {
				t.Error("the connection goes on")
			}
			p.answer("200", 5) // what is open ends as it would
			o.want(map[Class]int{Unavailable: 1, Delivered: 1})
			<-c.Done()
			var se *suspectError
			if !errors.As(c.Err(), &se) || se.Reason != "ExpiredProviderToken" {
				t.Errorf("Err %v", c.Err())
			}
			// By our clock it had 35 minutes to go.
			if want := "this machine's clock is at least 35 minutes behind APNs'"; !strings.Contains(fmt.Sprint(c.Err()), want) || !strings.Contains(fmt.Sprint(o.get(0).Err), want) {
				t.Errorf("Err %v, outcome %v", c.Err(), o.get(0).Err)
			}
		})
		withToken(t, source, func(c *Conn, p *peer) {
			p.open(c)
			if second := p.authorizations()[0]; second == first || source.Mints() != 2 {
				t.Errorf("the same token again; %d made", source.Mints())
			}
		})
	})
}

// GOAWAY may say it too.
func TestExpiredTokenByGoAway(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		source := NewProviderToken(key)
		withToken(t, source, func(c *Conn, p *peer) {
			p.open(c)
			time.Sleep(20 * time.Minute)
			p.do(func(fr *http2.Framer) {
				fr.WriteGoAway(1, http2.ErrCodeNo, []byte(`{"reason":"ExpiredProviderToken"}`))
			})
		})
		withToken(t, source, func(c *Conn, p *peer) {
			p.open(c)
			if n := source.Mints(); n != 2 {
				t.Errorf("%d tokens made, want another", n)
			}
		})
	})
}

// A fresh token on a fresh connection that is called expired: the clock is
// wrong, and no other connection will do better. That is the credential's fault.
func TestTokenRefusedForTheClock(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	for _, c := range []struct {
		name, reason string
		ahead        time.Duration // of APNs' clock, in its date; 0: none
		class        Class
		err          string // "": none
	}{
		{"expired, no date", "ExpiredProviderToken", 0, Credential, "this machine's clock is at least 60 minutes behind APNs': set it, best by NTP"},
		{"expired, date", "ExpiredProviderToken", 3 * time.Hour, Credential, "this machine's clock is 180 minutes behind APNs': set it, best by NTP"},
		{"expired, the clocks agree", "ExpiredProviderToken", time.Minute, Credential, ""},
		{"invalid, no date", "InvalidProviderToken", 0, Credential, ""},
		{"invalid, ahead", "InvalidProviderToken", -12 * time.Minute, Credential, "this machine's clock is 12 minutes ahead of APNs': set it, best by NTP"},
		{"invalid, the clocks agree", "InvalidProviderToken", -4 * time.Minute, Credential, ""},
		{"another topic", "TopicDisallowed", time.Hour, Credential, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
			withToken(t, NewProviderToken(key), func(conn *Conn, p *peer) {
				o := newOutcomes(t)
				o.send(conn, 0, 1)
				p.settle()
				var date []string
				if c.ahead != 0 {
					date = []string{"date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat)}
				}
				p.refuse(1, "403", c.reason, date...)
				got := o.get(0)
				if got.Class != c.class || got.Reason != c.reason {
					t.Errorf("%s: %+v", c.name, got)
				}
				text := ""
				if got.Err != nil {
					text = got.Err.Error()
					var ce *ClockError
					if !errors.As(got.Err, &ce) {
						t.Errorf("%s: %T", c.name, got.Err)
					}
				}
				if text != c.err {
					t.Errorf("%s: %q, want %q", c.name, text, c.err)
				}
			})
		})
	}
}

// It is so for each of several pushes that were sent at once.
func TestTokensRefusedForTheClock(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		withToken(t, NewProviderToken(key), func(c *Conn, p *peer) {
			o := newOutcomes(t)
			o.send(c, 0, 2)
			p.settle()
			p.refuse(1, "403", "ExpiredProviderToken")
			p.refuse(3, "403", "ExpiredProviderToken")
			o.want(map[Class]int{Credential: 2})
		})
	})
}

// It is not the credential's fault while something better can be tried: another
// connection, or another token.
func TestExpiredTokenIsTriedAgain(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		source := NewProviderToken(key)
		want := func(minute int, stream uint32, c *Conn, p *peer) {
			o := newOutcomes(t)
			o.send(c, 0, 1)
			p.settle()
			p.refuse(stream, "403", "ExpiredProviderToken")
			if got := o.get(0); got.Class != Unavailable || !got.Reconnect() || c.Usable() {
				t.Errorf("minute %d: %+v", minute, got)
			}
		}
		withToken(t, source, func(c *Conn, p *peer) {
			p.open(c)
			time.Sleep(10 * time.Minute)
			want(10, 3, c, p) // another connection
		})
		time.Sleep(25 * time.Minute)
		source = NewProviderToken(key)
		withToken(t, source, func(c *Conn, p *peer) { p.open(c) })
		time.Sleep(20 * time.Minute)
		withToken(t, source, func(c *Conn, p *peer) { want(55, 1, c, p) }) // another token
	})
}

// One token too many: pushes go on with the old one, on the same connection.
func TestTooManyTokensOnTheWire(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		source := NewProviderToken(key)
		withToken(t, source, func(c *Conn, p *peer) {
			p.open(c)
			time.Sleep(30 * time.Minute)
			o := newOutcomes(t)
			o.send(c, 0, 2)
			p.settle()
			p.refuse(3, "429", "TooManyProviderTokenUpdates")
			p.refuse(5, "429", "TooManyProviderTokenUpdates")
			o.want(map[Class]int{Unavailable: 2})
			o.send(c, 2, 1)
			p.settle()
			p.answer("200", 7)
			o.want(map[Class]int{Unavailable: 2, Delivered: 1})
			got := p.authorizations()
			if got[1] == got[0] || got[2] != got[1] || got[3] != got[0] {
				t.Error("not renewed, or not back to the old token")
			}
			if n := source.Mints(); n != 2 || !c.Usable() {
				t.Errorf("%d tokens made; %v", n, c.Err())
			}
		})
	})
}
