package httpapi

import (
	"crypto/tls"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// Nothing that the daemon answers is kept by caches: metrics, API, page, and what is not
// there. Assets may be.
func TestNoStore(t *testing.T) {
	t.Parallel()
	api := New(new(putTree), Options{Metrics: NewMetrics(new(putTree), MetricsOptions{Version: "v", Reloads: func() (at time.Time, _ *RefusedReload) { return at, nil }, Forgotten: new(atomic.Int64), UnusedApps: yes})})
	api.Use(Settings{Keys: testKeys, PProf: true})
	h := api.Network()
	for _, path := range []string{"/metrics", "/healthz", "/v1/apps", "/openapi.yaml", "/debug/pprof/", "/login", "/", "/none", "/v1/none"} {
		if got := send(h, "admin-0123", "GET", path, "").Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got := send(h, "", "GET", "/metrics", ""); got.Code != 401 || got.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("without a key: %d %v", got.Code, got.Header())
	}
}

// Browsers are told to come by TLS only where that is wanted, and by TLS.
func TestHSTS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hsts, tls, proxied, want bool
	}{
		{}, {hsts: true}, {tls: true}, {hsts: true, tls: true, want: true}, {hsts: true, proxied: true, want: true}, {proxied: true},
	} {
		api := New(new(putTree), Options{})
		api.Use(Settings{Keys: testKeys, HSTS: c.hsts, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}})
		r := httptest.NewRequest("GET", "/healthz", nil)
		if c.tls {
			r.TLS = new(tls.ConnectionState)
		}
		if c.proxied {
			r.RemoteAddr = "10.0.0.1:1"
			r.Header.Set("X-Forwarded-Proto", "https")
		}
		w := httptest.NewRecorder()
		api.Network().ServeHTTP(w, r)
		if got := w.Header().Get("Strict-Transport-Security"); got != "" != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
