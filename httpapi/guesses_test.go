package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// guessWays are the ways to show a key: how one is refused, and how one is let in.
var guessWays = map[string]struct { // never written to
	ask       func(g *guest, key string) *httptest.ResponseRecorder
	right, in int
}{
	"header": {func(g *guest, key string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/v1/apps", nil)
		r.Header.Set("Authorization", "Bearer "+key)
		return g.do(r)
	}, 401, 200},
	"readyz": {func(g *guest, key string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/readyz", nil)
		r.Header.Set("Authorization", "Bearer "+key)
		return g.do(r)
	}, 200, 200},
	"form": {func(g *guest, key string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/post", strings.NewReader(url.Values{"auth_token": {key}, "topic": {topic}, "token": {goodToken}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return g.do(r)
	}, 401, 200},
	"page": {func(g *guest, key string) *httptest.ResponseRecorder { return g.post("/login", "key", key) }, 401, 303},
}

// Nobody tries very many keys quickly or unseen, in whatever way; a right key is
// taken at once, whatever others at its address have done.
func TestGuesses(t *testing.T) {
	t.Parallel()
	for name, way := range guessWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api, log := guessedAPI()
				evil := newGuest(t, api.Network())
				guess := func(i int) (took time.Duration) {
					t.Helper()
					evil.from = fmt.Sprintf("[2001:db8::%x]:1", i%9+1) // of one network
					began := time.Now()
					w := way.ask(evil, fmt.Sprint("guess-", i))
					took = time.Since(began)
					if w.Code != way.right || took > 0 && w.Header().Get("Connection") != "close" {
						t.Errorf("%d after %v: %d %v", i, took, w.Code, w.Header())
					}
					return took
				}
				for i := range guessBurst {
					if took := guess(i); took != 0 {
						t.Errorf("%d: %v", i, took)
					}
				}
				for i := range 3 {
					if took := guess(i); took != guessWait {
						t.Errorf("too many: %v", took)
					}
				}
				began := time.Now()
				if w := way.ask(evil, "admin-0123"); w.Code != way.in || time.Since(began) > 0 {
					t.Errorf("the right key: %d after %v", w.Code, time.Since(began))
				}
				if guessLines(log) != 1 {
					t.Errorf("at first the log has %d lines: %s", guessLines(log), log)
				}
				time.Sleep(guessLog)
				synctest.Wait()
				if guessLines(log) != 2 || !strings.Contains(log.String(), "keys=12") || strings.Contains(log.String(), "guess-") {
					t.Errorf("then the log has: %s", log)
				}
				time.Sleep(guessLog)
				synctest.Wait()
				if guessLines(log) != 2 || len(api.wrong.byAddr) != 0 {
					t.Errorf("at the end %d addresses are remembered, the log has: %s", len(api.wrong.byAddr), log)
				}
			})
		})
	}
}

// guessedAPI takes notifications, too.
func guessedAPI() (*API, *logText) {
	api, _, log := newPageAPI()
	api.tree = newTouchedTree()
	return api, log
}

// logText is a log that may be read while it is written: also by a timer.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// guessLines counts the log's lines about wrong keys.
func guessLines(log *logText) int {
	return strings.Count(log.String(), `msg="http: wrong keys"`)
}

// Very many addresses, and very many guesses at once, take a bounded number of
// places.
func TestGuessesBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api, _ := guessedAPI()
		h := api.Network()
		guess := func(from string) {
			g := newGuest(t, h)
			g.from = from
			guessWays["header"].ask(g, "wrong")
		}
		for i := range maxAddrs + 50 {
			guess(fmt.Sprintf("198.51.%d.%d:1", i/250, i%250))
		}
		if n := len(api.wrong.byAddr); n != maxAddrs+1 || api.wrong.byAddr[otherAddrs].n != 49 {
			t.Errorf("%d addresses are told apart", n)
		}
		began := time.Now()
		for range 3 * maxHeld {
			go guess("203.0.113.1:1")
		}
		synctest.Wait()
		if n := len(api.wrong.held); n != maxHeld {
			t.Errorf("%d answers are held back", n)
		}
		time.Sleep(guessWait)
		synctest.Wait()
		if n := len(api.wrong.held); n != 0 || time.Since(began) != guessWait {
			t.Errorf("%d answers are held back after %v", n, time.Since(began))
		}
		time.Sleep(2 * guessLog)
		synctest.Wait()
		if n := len(api.wrong.byAddr); n != 0 {
			t.Errorf("%d addresses are remembered for nothing", n)
		}
	})
}

// A proxy that nobody has told of is warned of, once.
func TestUntrustedProxy(t *testing.T) {
	t.Parallel()
	api, log := guessedAPI()
	api.Use(Settings{Keys: testKeys, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, c := range []struct {
		from, forwarded string
		warnings        int
	}{{"192.0.2.7:1", "", 0}, {"10.0.0.1:1", "1.2.3.4", 0}, {"192.0.2.7:1", "1.2.3.4", 1}, {"192.0.2.8:1", "1.2.3.4", 1}} {
		g := newGuest(t, api.Network())
		g.from = c.from
		if c.forwarded != "" {
			g.headers["X-Forwarded-For"] = c.forwarded
		}
		if w := g.get("/healthz"); w.Code != http.StatusOK {
			t.Errorf("%d", w.Code)
		}
		if n := strings.Count(log.String(), "trusted_proxies"); n != c.warnings {
			t.Errorf("%+v: the log has: %s", c, log)
		}
	}
	if !strings.Contains(log.String(), "proxy=192.0.2.7") {
		t.Errorf("the log has: %s", log)
	}
}
