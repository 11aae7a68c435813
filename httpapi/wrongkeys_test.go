package httpapi

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
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

// Nobody tries very many keys quickly or unseen, in whatever way and from however
// many addresses; a right key is taken at once, whatever others do.
func TestWrongKeys(t *testing.T) {
	t.Parallel()
	for name, way := range guessWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api, log := guessedAPI()
				h := api.Network()
				guess := func(i int) (answered bool, took time.Duration) {
					evil := newGuest(t, h)
					evil.from = fmt.Sprintf("198.51.100.%d:1", i%250)
					defer func() {
						if v := recover(); v != nil && v != http.ErrAbortHandler {
							panic(v)
						}
					}()
					began := time.Now()
					if w := way.ask(evil, fmt.Sprint("guess-", i)); w.Code != way.right {
						t.Errorf("%d: %d", i, w.Code)
					}
					return true, time.Since(began)
				}
				for i := range wrongBurst {
					if ok, took := guess(i); !ok || took != 0 {
						t.Errorf("%d: %t after %v", i, ok, took)
					}
				}
				const more = 1000
				var answered atomic.Int64
				var all sync.WaitGroup
				for i := range more {
					all.Go(func() {
						ok, took := guess(i)
						if ok {
							answered.Add(1)
						}
						if took > wrongWait {
							t.Errorf("answered after %v", took)
						}
					})
				}
				began := time.Now()
				if w := way.ask(newGuest(t, h), "admin-0123"); w.Code != way.in || time.Since(began) > 0 {
					t.Errorf("the right key: %d after %v", w.Code, time.Since(began))
				}
				all.Wait()
				if n := answered.Load(); n != int64(wrongWait.Seconds()*wrongRate) {
					t.Errorf("%d of %d are answered", n, more)
				}
				if wrongLines(log) != 1 {
					t.Errorf("at first the log has %d lines: %s", wrongLines(log), log)
				}
				time.Sleep(wrongLog)
				synctest.Wait()
				if wrongLines(log) != 2 || !strings.Contains(log.String(), fmt.Sprint("keys=", wrongBurst-1+more)) || strings.Contains(log.String(), "guess-") {
					t.Errorf("then the log has: %s", log)
				}
				time.Sleep(2 * wrongLog)
				synctest.Wait()
				if wrongLines(log) != 2 {
					t.Errorf("at the end the log has: %s", log)
				}
			})
		})
	}
}

// Over the network a wrong key too many gets no answer, and its connection ends.
func TestWrongKeysAreCut(t *testing.T) {
	t.Parallel()
	for _, second := range []bool{false, true} {
		api, _ := guessedAPI()
		addr := serveTLS(t, api.Network())
		api.wrong.limit.SetBurst(1)
		api.wrong.limit.SetLimit(rate.Every(time.Hour))
		for i := range 3 {
			client := newClient(t)
			tr := client.Transport.(*http.Transport)
			tr.ForceAttemptHTTP2, tr.TLSClientConfig = second, &tls.Config{InsecureSkipVerify: true} // its name is no host's
			r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/v1/apps", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer wrong-0123")
			resp, err := client.Do(r)
			if err == nil {
				resp.Body.Close()
			}
			if answered := err == nil; answered != (i == 0) {
				t.Errorf("HTTP/2 %t: wrong key %d is answered: %t, %v", second, i, answered, err)
			}
		}
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

// wrongLines counts the log's lines about wrong keys.
func wrongLines(log *logText) int {
	return strings.Count(log.String(), `msg="http: wrong keys"`)
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
