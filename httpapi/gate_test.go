package httpapi

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// newHTTP2 is a client that has one connection of HTTP/2, and no other.
func newHTTP2(t *testing.T, addr string) *http.Client {
	t.Helper()
	tr := &http.Transport{
		ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its name is no host's
	}
	one, err := tr.NewClientConn(t.Context(), "https", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	return &http.Client{Transport: one, Timeout: patience}
}

// Before a key is shown a connection of HTTP/2 has one request at a time; the others
// wait, and none is refused. Then it has several.
func TestOneStreamBeforeAKey(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now, most := make(map[string]int), 0 // of a connection
	count := func(r *http.Request, more int) int {
		mu.Lock()
		defer mu.Unlock()
		now[r.RemoteAddr] += more
		most = max(most, now[r.RemoteAddr])
		return now[r.RemoteAddr]
	}
	both := make(chan struct{})
	addr := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/key" {
			markAuthenticated(r)
			if count(r, 1) == 2 {
				close(both)
			}
			<-both
			return
		}
		defer count(r, -1)
		count(r, 1)
		time.Sleep(time.Millisecond) // others may come
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	client := newHTTP2(t, addr)
	ask := func(n int, path string) {
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				resp, err := client.Get("https://" + addr + path)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					t.Errorf("%s, %v", resp.Status, err)
				}
			})
		}
		all.Wait()
	}
	ask(50, "/")
	if most != 1 {
		t.Errorf("%d requests of a stranger at once", most)
	}
	ask(2, "/key")
}

// Answers that nobody reads let no further request of a stranger in.
func TestUnreadAnswerBeforeAKey(t *testing.T) {
	t.Parallel()
	var begun atomic.Int64
	addr := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		_, _ = io.WriteString(w, "a short answer")
	}))
	c := dialHTTP2(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for range 10 {
		c.begin("/", nil)
	}
	waitFor(t, func() bool { return begun.Load() > 0 })
	time.Sleep(100 * time.Millisecond) // it cannot be seen that nothing comes
	if n := begun.Load(); n != 1 {
		t.Errorf("%d requests are begun", n)
	}
	waitFor(t, func() bool { return c.gone.Load() }) // its time is over
}

// The body of a stranger's request comes when it is asked for.
func TestNoBodyBeforeAKey(t *testing.T) {
	t.Parallel()
	type read struct {
		n   int
		err error
	}
	for name, c := range map[string]struct {
		ask  func(*http.Request)
		want int
	}{
		"a stranger's": {func(*http.Request) {}, 0}, "asked for": {func(r *http.Request) { askBody(r, 10) }, 10}, "with a key": {markAuthenticated, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan read, 1)
			addr := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.ask(r)
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
				n, err := io.ReadFull(r.Body, make([]byte, 10))
				got <- read{n, err}
			}))
			dialHTTP2(t, addr).begin("/", []byte("0123456789"))
			if r := <-got; r.n != c.want || (r.err == nil) != (c.want > 0) {
				t.Errorf("%d bytes, %v", r.n, r.err)
			}
		})
	}
}

// Forms with a key in them that come at once on a new connection of HTTP/2, mixed with
// each other, are all taken.
func TestFormsAtOnceOverHTTP2(t *testing.T) {
	t.Parallel()
	tree := newTouchedTree()
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	addr := serveTLS(t, api.Network())
	const rounds, forms = 10, 10
	for range rounds {
		client := newHTTP2(t, addr)
		var all sync.WaitGroup
		for i := range forms {
			all.Go(func() {
				resp, err := client.PostForm("https://"+addr+"/post", url.Values{"auth_token": {"sender-0123"}, "topic": {topic}, "token": {goodToken}, "title": {fmt.Sprint(i)}})
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Error(resp.Status)
				}
			})
		}
		all.Wait()
	}
	if n := len(tree.take()); n != rounds*forms {
		t.Errorf("%d of %d are put", n, rounds*forms)
	}
}

// The head of a request has 8 KiB, over HTTP/1 and HTTP/2.
func TestHeads(t *testing.T) {
	t.Parallel()
	addr := serveTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, second := range []bool{false, true} {
		for size, want := range map[int]int{maxHeader - 800: 200, maxHeader + 100: 431} {
			client := newClient(t)
			tr := client.Transport.(*http.Transport)
			tr.ForceAttemptHTTP2, tr.TLSClientConfig = second, &tls.Config{InsecureSkipVerify: true} // its name is no host's
			r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Long", strings.Repeat("x", size))
			resp, err := client.Do(r)
			if err != nil { // the client keeps to what the server has said
				if !second || want == 200 {
					t.Errorf("HTTP/2 %t: %d bytes: %v", second, size, err)
				}
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != want || (resp.ProtoMajor == 2) != second {
				t.Errorf("HTTP/2 %t: %d bytes: %s %s", second, size, resp.Proto, resp.Status)
			}
		}
	}
}
