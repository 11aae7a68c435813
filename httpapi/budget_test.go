package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// takenBy is how much a client has, or waits for.
func (b *budget) takenBy(key string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.shares[key]; s != nil {
		return s.n
	}
	return 0
}

// Each client has its share at most; who waits gets it in turn, but for those whose
// share is used up.
func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(40, 10)
		for _, c := range []struct {
			key  string
			n    int64
			want bool
		}{{"a", 11, false}, {"a", 10, true}, {"a", 1, false}, {"b", 10, true}, {"c", 10, true}, {"d", 5, true}} {
			if got := b.try(c.key, c.n); got != c.want {
				t.Errorf("%+v: %v", c, got)
			}
		}
		var mu sync.Mutex
		var got []string
		var waiting sync.WaitGroup
		wait := func(ctx context.Context, key string, n int64) {
			waiting.Go(func() {
				err := b.take(ctx, key, n)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					key = "no " + key
				}
				got = append(got, key)
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		wait(t.Context(), "a", 10) // has its share
		wait(ctx, "e", 6)          // there are 5
		wait(t.Context(), "f", 4)  // waits behind it
		if len(got) != 0 {
			t.Errorf("at first %q", got)
		}
		cancel()
		synctest.Wait()
		if strings.Join(got, " ") != "no e f" && strings.Join(got, " ") != "f no e" {
			t.Errorf("e waits no more: %q", got)
		}
		got = nil
		b.free("b", 10)
		synctest.Wait()
		if len(got) != 0 {
			t.Errorf("b's are free, and go to %q", got)
		}
		b.free("a", 10)
		waiting.Wait()
		if strings.Join(got, " ") != "a" {
			t.Errorf("a's are free, and go to %q", got)
		}
		for key, n := range map[string]int64{"a": 10, "c": 10, "d": 5, "f": 4} {
			b.free(key, n)
		}
		if len(b.shares) != 0 || !b.try("x", 10) || !b.all.TryAcquire(30) {
			t.Errorf("%d shares are left, or not all is free", len(b.shares))
		}
	})
}

// begin sends the head of a request with a long body, and a part of that.
func begin(t *testing.T, addr, token, kind string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\nContent-Type: " + kind + "\r\nContent-Length: 16000000\r\n\r\n"
	if _, err := io.WriteString(conn, head+strings.Repeat("[", chunk+1)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// readFunc is a body that calls itself whenever it is read.
type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// While a body is on its way nobody else's turn is held up.
func TestNoTurnWhileReading(t *testing.T) {
	t.Parallel()
	tree := newTouchedTree()
	api := New(tree, Options{})
	text := strings.NewReader(choice)
	body := readFunc(func(p []byte) (int, error) {
		if n := api.asking.takenBy("socket"); n != 0 {
			t.Errorf("%d are taken", n)
		}
		return text.Read(p)
	})
	w := httptest.NewRecorder()
	api.Socket().ServeHTTP(w, httptest.NewRequest("POST", "/v1/apps/"+topic+"/buried/kick", body))
	if done := tree.take(); w.Code != http.StatusOK || len(done) == 0 {
		t.Errorf("%d %s, done %q", w.Code, w.Body, done)
	}
}

// A key whose clients send large bodies slowly keeps no other from sending any.
func TestLargeBodiesOfOthers(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, api.Network())
	for range 2 * bodyBudget / bodyCost / largeBody {
		begin(t, addr, "sender-0123", "application/json")
	}
	waitFor(t, func() bool { return api.bodies.takenBy("sender") > api.bodies.each-bodyCost*largeBody })
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/v1/notifications", strings.NewReader("["+notification("")+strings.Repeat(" ", 3*smallBody)+"]"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin-0123")
	resp, err := newClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Error(resp.Status)
	}
	if api.bodies.takenBy("sender") == 0 {
		t.Error("the slow ones had gone before")
	}
}

// Who sends a large body, or line, too slowly gives its places back, whatever the
// server's own limits.
func TestLargeBodyTooSlow(t *testing.T) {
	t.Parallel()
	api := New(new(putTree), Options{})
	api.Use(Settings{Keys: testKeys})
	server := httptest.NewServer(api.Network())
	t.Cleanup(server.Close)
	for kind, want := range map[string]string{"application/json": "408 Request Timeout", ndjson: `"status":408`} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			conn := begin(t, server.Listener.Addr().String(), "sender-0123", kind)
			if err := conn.SetReadDeadline(time.Now().Add(lineTime - chunkTime)); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.Contains(string(answer), want) || !strings.Contains(string(answer), "in time") {
				t.Errorf("%s, %v", answer, err)
			}
		})
	}
	t.Cleanup(func() {
		if n := api.bodies.takenBy("sender"); n != 0 {
			t.Errorf("%d are held", n)
		}
	})
}
