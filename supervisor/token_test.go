package supervisor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
)

const team = "DEF123GHIJ"

// account is Apple's knowledge of the keys it gave out, by their ids.
type account struct {
	mu   sync.Mutex
	keys map[string]*ecdsa.PublicKey
}

// verify checks a provider token and its signature as Apple does.
func (a *account) verify(text string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	token, err := jwt.Parse(text, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if key := a.keys[kid]; key != nil {
			return key, nil
		}
		return nil, jwt.ErrTokenUnverifiable
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(team))
	if err != nil || !token.Valid {
		return "InvalidProviderToken"
	}
	return ""
}

// newTokenWorld is newWorld with an APNs that wants provider tokens, and the
// keys named, each in a file of its id.
func newTokenWorld(t *testing.T, o apnstest.Options, ids ...string) (*world, *account) {
	t.Helper()
	a := &account{keys: make(map[string]*ecdsa.PublicKey)}
	o.ClientCert, o.OneStreamFirst, o.MinTokenAge, o.VerifyToken = apnstest.ClientCertNone, true, 20*time.Minute, a.verify
	w := newWorld(t, o)
	for _, id := range ids {
		a.issue(w, id)
	}
	return w, a
}

// issue writes a new key into the file of its id, and makes it known to Apple.
func (a *account) issue(w *world, id string) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(id+".p8", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[id] = &key.PublicKey
}

// keyed is an entry of apps: with a key.
func keyed(topic, id string, keys ...string) string {
	return "  - {topic: " + topic + ", key: " + id + ".p8, key_id: " + id + ", team_id: " + team + strings.Join(append([]string{""}, keys...), ", ") + "}\n"
}

// mints is how many provider tokens were made in all.
func (w *world) mints() (n int64) {
	w.sup.applying.Lock()
	defer w.sup.applying.Unlock()
	for _, p := range w.sup.tokens {
		n += p.Mints()
	}
	return n
}

const (
	keyA    = "AAAAAAAAAA"
	keyB    = "BBBBBBBBBB"
	topic2  = "com.example.second"
	unknown = "UUUUUUUUUU"
)

// All workers of all apps with one key use one token; another key has its own.
func TestAppsShareAToken(t *testing.T) {
	const n = 300
	w, _ := newTokenWorld(t, apnstest.Options{}, keyA, keyB)
	w.start(keyed(topic, keyA, "workers: 3") + keyed(topic2, keyA) + keyed("com.example.third", keyB))
	for i := range n {
		w.put([]string{topic, topic2, "com.example.third"}[i%3], jobBody(i))
	}
	w.until("all delivered", func() bool { return len(w.received()) == n })
	w.eachOnce(n)
	if m := w.mints(); m != 2 {
		t.Errorf("%d tokens made for two keys", m)
	}
	tokens := make(map[string]map[string]bool) // by topic
	for _, r := range w.apns.Requests() {
		topic := r.Header.Get("apns-topic")
		if tokens[topic] == nil {
			tokens[topic] = make(map[string]bool)
		}
		tokens[topic][r.Header.Get("authorization")] = true
	}
	if len(tokens) != 3 || len(tokens[topic]) != 1 || len(tokens[topic2]) != 1 {
		t.Errorf("tokens by topic: %v", tokens)
	}
}

// A reload neither makes another token for a key that stays, nor for one that
// is taken out and put back.
func TestReloadKeepsTheToken(t *testing.T) {
	w, a := newTokenWorld(t, apnstest.Options{}, keyA)
	w.start(keyed(topic, keyA))
	i := 0
	deliver := func(topics ...string) {
		t.Helper()
		for _, topic := range topics {
			w.put(topic, jobBody(i))
			i++
			w.empty(topic)
		}
	}
	deliver(topic)
	w.apply(keyed(topic, keyA))                 // nothing changes
	w.apply(keyed(topic, keyA, "in_flight: 7")) // the app is replaced
	deliver(topic)
	w.apply(keyed(topic, keyA) + keyed(topic2, keyA)) // one more app
	deliver(topic, topic2)
	w.apply("  - {topic: " + topic2 + ", server: mock}\n") // the key is not used any more
	w.apply(keyed(topic, keyA))
	deliver(topic)
	w.eachOnce(i)
	if m := w.mints(); m != 1 {
		t.Errorf("%d tokens made", m)
	}
	a.issue(w, keyA) // a renewed key under the same path and id
	w.apply(keyed(topic, keyA))
	w.until("the renewed key is used", func() bool { // the worker before may take one more job
		deliver(topic)
		return w.mints() > 1
	})
	w.eachOnce(i)
	if m := w.mints(); m != 2 {
		t.Errorf("%d tokens made with a renewed key", m)
	}
	if w.log.contains("app is broken") {
		t.Error("a token was refused")
	}
}

// A key that Apple does not know breaks its app, and no other; the right one,
// by a reload, mends it.
func TestWrongKeyBreaksTheApp(t *testing.T) {
	w, a := newTokenWorld(t, apnstest.Options{}, keyA, unknown)
	a.mu.Lock()
	delete(a.keys, unknown)
	a.mu.Unlock()
	w.start(keyed(topic, unknown) + keyed(topic2, keyA))
	w.put(topic, jobBody(0))
	w.until("the app is broken", func() bool { return w.status(topic).Health.State == Broken })
	if got := w.status(topic).Health.Reason; got != "403 InvalidProviderToken" {
		t.Errorf("reason %q", got)
	}
	w.put(topic2, jobBody(1))
	w.empty(topic2)
	if w.status(topic2).Health.State == Broken {
		t.Error("the other app is broken too")
	}
	w.apply(keyed(topic, keyA) + keyed(topic2, keyA))
	w.empty(topic)
	w.eachOnce(2)
	if w.status(topic).Health.State == Broken {
		t.Error("still broken with a good key")
	}
}

// The jobs of an app that is broken keep their places: when it works again they
// are sent in the order in which they were put, also the one that broke it.
func TestBrokenAppKeepsTheOrder(t *testing.T) {
	const n = 30
	w, a := newTokenWorld(t, apnstest.Options{}, keyA, unknown)
	a.mu.Lock()
	delete(a.keys, unknown)
	a.mu.Unlock()
	var bodies []string
	for i := range n {
		bodies = append(bodies, jobBody(i))
	}
	w.start(keyed(topic, unknown, "in_flight: 1"))
	w.put(topic, bodies...)
	w.until("the app is broken", func() bool { return w.status(topic).Health.State == Broken })
	w.until("its jobs are in the queue", func() bool { return w.tube(topic, "current-jobs-ready") == n })
	w.apply(keyed(topic, keyA, "in_flight: 1"))
	w.empty(topic)
	next := 0
	for _, r := range w.apns.Requests() {
		if r.Answer.Status != 200 {
			continue
		}
		if r.Token != token(next) {
			t.Fatalf("delivery %d is of token %s", next, r.Token)
		}
		next++
	}
	if next != n {
		t.Errorf("%d of %d delivered", next, n)
	}
}

// An expired token costs the connection, not the push: it goes out again on
// another one within seconds, though retry.min is an hour.
func TestExpiredTokenIsRetriedSoon(t *testing.T) {
	w, _ := newTokenWorld(t, apnstest.Options{Script: apnstest.Nth(2, apnstest.Answer{Status: 403, Reason: "ExpiredProviderToken"})}, keyA)
	w.start(keyed(topic, keyA, "retry: {min: 1h, max: 1h}"))
	w.put(topic, jobBody(0))
	w.empty(topic)
	w.put(topic, jobBody(1))
	w.empty(topic)
	w.eachOnce(2)
	if n := w.apns.Dials(); n != 2 {
		t.Errorf("%d connections", n)
	}
	if w.status(topic).Health.State == Broken || w.status(topic).Counters.Buried.Load() != 0 {
		t.Error("broken or buried")
	}
	if m := w.mints(); m != 1 {
		t.Errorf("%d tokens made within 20 minutes", m)
	}
	if !w.log.contains("this machine's clock is at least") {
		t.Error("the log does not name the clock")
	}
}

// The stand-in inside takes a key as Apple does.
func TestMockWithKey(t *testing.T) {
	w, _ := newTokenWorld(t, apnstest.Options{}, keyA)
	w.start(keyed(topic, keyA, "server: mock"))
	w.put(topic, jobBody(0))
	w.empty(topic)
	if m := w.mints(); m != 1 || w.status(topic).Counters.Buried.Load() != 0 {
		t.Errorf("%d tokens made, %d buried", m, w.status(topic).Counters.Buried.Load())
	}
}

// One source of tokens for each key, however often it is read.
func TestTokensByKey(t *testing.T) {
	w, a := newTokenWorld(t, apnstest.Options{}, keyA)
	load := func(id, team string) *apnsconn.Key {
		t.Helper()
		k, err := apnsconn.LoadKey(filepath.Join(w.dir, keyA+".p8"), id, team)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	all := make(tokens)
	first := all.of(load(keyA, team))
	if all.of(load(keyA, team)) != first {
		t.Error("the same key read again has tokens of its own")
	}
	others := []*apnsconn.Key{load(keyB, team), load(keyA, "XXX123GHIJ")}
	a.issue(w, keyA)
	for _, k := range append(others, load(keyA, team)) {
		if p := all.of(k); p == first || p.Key() != k {
			t.Errorf("%v shares the tokens of another key", k)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d sources", len(all))
	}
}
