package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What a proxy leaves of the base path does not matter; profiles are there only
// if wanted; nobody is led out of the base path.
func TestBasePath(t *testing.T) {
	t.Parallel()
	api := New(new(fakeTree), Options{})
	api.Use(Settings{Keys: testKeys, BasePath: "/a/b"})
	h := api.Network()
	for path, want := range map[string]struct {
		status int
		to     string
	}{
		"/a/b/healthz": {200, ""}, "/healthz": {200, ""}, "/a/bhealthz": {404, ""}, "/a/b": {308, "/a/b/"}, "/a/b/debug/pprof/": {404, ""},
		"/a/b/v1/apps": {200, ""}, "/a/b//healthz": {307, "/a/b/healthz"}, "//healthz": {307, "/a/b/healthz"},
		"/a/b//apps/x?y=%2F": {307, "/a/b/apps/x?y=%2F"}, "/a/b/apps/../login": {307, "/a/b/login"}, "/a/b/../login": {307, "/a/b/login"},
		"/a/b//evil.example/": {307, "/a/b/evil.example/"}, "/a/b/debug/pprof": {307, "/a/b/debug/pprof/"}, "/a/b/%2e%2e": {404, ""},
		"/a/b/apps/x%2F%2Fy": {303, "/a/b/login?next=%2Fapps%2Fx%252F%252Fy"},
	} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "bearer  admin-0123")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if to := w.Header().Get("Location"); w.Code != want.status || to != want.to {
			t.Errorf("%s: %d to %q, want %d to %q", path, w.Code, to, want.status, want.to)
		}
	}
}

// A path that is for other methods says for which.
func TestMethods(t *testing.T) {
	t.Parallel()
	api := New(new(fakeTree), Options{})
	api.Use(Settings{Keys: testKeys, BasePath: "/a"})
	for _, c := range []struct{ method, path, allow string }{
		{"PUT", "/v1/notifications", "POST"}, {"GET", "/a/v1/notifications", "POST"}, {"GET", "/v1/notifications", "POST"}, {"DELETE", "/v1/apps", "GET, HEAD"},
		{"POST", "/v1/apps/" + topic, "GET, HEAD"}, {"PUT", "/a/login", "GET, HEAD, POST"}, {"OPTIONS", "/post", "POST"}, {"POST", "/a/", "GET, HEAD"},
		{"POST", "/none", ""}, {"GET", "/v1", ""}, {"PATCH", "/a/v1/none", ""},
	} {
		w := httptest.NewRecorder()
		api.Network().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader("{}")))
		want := http.StatusMethodNotAllowed
		if c.allow == "" {
			want = http.StatusNotFound
		}
		if w.Code != want || w.Header().Get("Allow") != c.allow || w.Header().Get("Content-Type") != problemType {
			t.Errorf("%s %s: %d, Allow %q, want %d, %q: %s", c.method, c.path, w.Code, w.Header().Get("Allow"), want, c.allow, w.Body)
		}
	}
}
