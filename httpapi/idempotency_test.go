package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// frozenTree has its jobs answered only once it has thawed. They are stored even
// if nobody waits for that, as beanstalkd does that was stopped for a while.
type frozenTree struct {
	putTree
	asked, thaw chan struct{}
}

func (f *frozenTree) Put(ctx context.Context, name string, body []byte, delay time.Duration) (string, error) {
	id, err := f.putTree.Put(ctx, name, body, delay)
	f.asked <- struct{}{}
	select {
	case <-f.thaw:
		return id, err
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", queue.ErrUncertain, ctx.Err())
	}
}

// keyedRequest is a request with an Idempotency-Key.
func keyedRequest(t *testing.T, ctx context.Context, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/notifications", strings.NewReader(notification("")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer sender-0123")
	r.Header.Set("Idempotency-Key", "k")
	return r
}

// A client that went away before the answer gets it by asking again: nothing is
// put twice.
func TestIdempotencyOutlivesTheClient(t *testing.T) {
	t.Parallel()
	tree := &frozenTree{asked: make(chan struct{}, 2), thaw: make(chan struct{})}
	h := newKeyed(tree)
	gone := make(chan struct{}, 100)
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { gone <- struct{}{} })
		h.ServeHTTP(w, r)
	}))
	client, url := newClient(t), "http://"+addr
	ctx, leave := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := client.Do(keyedRequest(t, ctx, url))
		failed <- err
	}()
	<-tree.asked
	leave()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-gone // the server knows it, too
	again := func() (status int, replayed bool) {
		resp, err := client.Do(keyedRequest(t, t.Context(), url))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Idempotency-Replayed") != ""
	}
	if status, _ := again(); status != http.StatusConflict {
		t.Errorf("while the first is at work: %d", status)
	}
	close(tree.thaw)
	waitFor(t, func() bool { // the first is over
		status, replayed := again()
		return status == http.StatusAccepted && replayed
	})
	if len(tree.jobs) != 1 {
		t.Errorf("put %q", tree.jobs)
	}
}

// What goes on without its client ends with the server.
func TestIdempotencyEndsWithTheServer(t *testing.T) {
	t.Parallel()
	s, err := NewWeb(Web{Listen: "127.0.0.1:0"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	tree := &frozenTree{asked: make(chan struct{}, 1), thaw: make(chan struct{})}
	h := newKeyed(tree)
	over := make(chan struct{})
	s.Answer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		h.ServeHTTP(w, r)
	}))
	url := "http://" + s.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		_ = s.Serve(ctx)
		close(ended)
	}()
	failed := make(chan struct{})
	client := newClient(t)
	go func() {
		defer close(failed)
		if resp, err := client.Do(keyedRequest(t, t.Context(), url)); err == nil {
			resp.Body.Close()
		}
	}()
	<-tree.asked
	stop()
	<-ended
	<-over
	<-failed
}

// The answer to what may have been put is kept: carried out again it might be
// sent twice. What was certainly not put is tried anew.
func TestIdempotencyOfTheUncertain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		body string
		kept bool
	}{
		"one":             {fmt.Errorf("%w: %w", queue.ErrUncertain, queue.ErrUnavailable), notification(""), true},
		"a list":          {fmt.Errorf("%w: %w", queue.ErrUncertain, queue.ErrUnavailable), "[" + notification("") + "]", true},
		"not taken":       {queue.ErrUnavailable, notification(""), false},
		"list, not taken": {queue.ErrUnavailable, "[" + notification("") + "]", false},
		"nobody knows":    {errors.New("odd"), notification(""), true},
	} {
		tree := &putTree{err: c.err}
		h := newKeyed(tree)
		first := send(h, "sender-0123", "POST", "/v1/notifications", c.body, "Idempotency-Key", "k")
		again := send(h, "sender-0123", "POST", "/v1/notifications", c.body, "Idempotency-Key", "k")
		want := 2
		if c.kept {
			want = 1
		}
		if replayed := again.Header().Get("Idempotency-Replayed") != ""; replayed != c.kept || first.Body.String() != again.Body.String() || len(tree.jobs) != want {
			t.Errorf("%s: %d jobs, %s, then %s, replayed: %v", name, len(tree.jobs), first.Body, again.Body, replayed)
		}
		if says := strings.Contains(first.Body.String(), `"uncertain":true`); says != errors.Is(c.err, queue.ErrUncertain) {
			t.Errorf("%s: %s", name, first.Body)
		}
		if asks := first.Header().Get("Retry-After") != ""; asks != (name == "not taken") {
			t.Errorf("%s: Retry-After: %v", name, asks)
		}
	}
}

// brokenTree panics, as a bug would, when a job may already be on its way.
type brokenTree struct{ putTree }

func (b *brokenTree) Put(ctx context.Context, name string, body []byte, delay time.Duration) (string, error) {
	_, _ = b.putTree.Put(ctx, name, body, delay)
	panic("a bug")
}

// After a panic nobody knows what was put.
func TestIdempotencyAfterAPanic(t *testing.T) {
	t.Parallel()
	tree := new(brokenTree)
	h := newKeyed(tree)
	for range 2 {
		w := send(h, "sender-0123", "POST", "/v1/notifications", notification(""), "Idempotency-Key", "k")
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusInternalServerError {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if len(tree.jobs) != 1 {
		t.Errorf("put %q", tree.jobs)
	}
}

// Requests under way are not forgotten, however many come after them, and there
// may not be any number of them.
func TestAnswersUnderWay(t *testing.T) {
	t.Parallel()
	var k answers
	sum := [32]byte{1}
	first, _ := k.begin("c", "first", sum, time.Now())
	for i := range 3 * maxKept {
		e, f := k.begin("c", fmt.Sprint(i), sum, time.Now())
		if f != answerNew {
			t.Fatal(f)
		}
		k.finish(e, answer{}, true)
	}
	if _, f := k.begin("c", "first", sum, time.Now()); f != answerPending {
		t.Errorf("%v", f)
	}
	if n := k.shelves["c"].order.Len(); n > maxKept+1 || k.bytes > maxKeptBytes {
		t.Errorf("%d answers, %d bytes", n, k.bytes)
	}
	k.finish(first, answer{}, true)
	if _, f := k.begin("c", "first", sum, time.Now()); f != answerKept {
		t.Errorf("%v", f)
	}
}

// What one client sends pushes nobody below an equal share, is counted, and nothing
// of those that have nothing left stays.
func TestAnswersHaveShares(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testShares)
}

func testShares(t *testing.T) {
	forgotten := new(atomic.Int64)
	k := answers{forgotten: forgotten}
	sum := [32]byte{1}
	take := func(client, key string, keep bool) {
		if e, f := k.begin(client, key, sum, time.Now()); f == answerNew {
			k.finish(e, answer{body: make([]byte, 100)}, keep)
		}
	}
	for i := range maxKept / 3 {
		take("quiet", fmt.Sprint(i), true)
	}
	for i := range 2 * maxKept {
		take("loud", fmt.Sprint(i), true)
	}
	take("once", "k", true)
	if _, f := k.begin("quiet", "0", sum, time.Now()); f != answerKept {
		t.Errorf("the quiet client's oldest: %v", f)
	}
	if _, f := k.begin("once", "k", sum, time.Now()); f != answerKept {
		t.Errorf("a third client's: %v", f)
	}
	if n := k.shelves["loud"].order.Len() + int(forgotten.Load()); n != 2*maxKept || forgotten.Load() == 0 {
		t.Errorf("%d counted, of %d", n, 2*maxKept)
	}
	before, counted := k.bytes, forgotten.Load()
	for i := range maxKept {
		take("refused", fmt.Sprint(i), false)
	}
	if k.bytes != before || k.shelves["refused"] != nil || forgotten.Load() != counted {
		t.Errorf("%d bytes, then %d with refused ones; %d forgotten", before, k.bytes, forgotten.Load()-counted)
	}
	time.Sleep(keepFor)
	for i := range maxKept { // a day later all others make room before anything is forgotten
		take("late", fmt.Sprint(i), true)
	}
	if k.shelves["quiet"] != nil || forgotten.Load() != counted {
		t.Errorf("%d forgotten before old ones", forgotten.Load()-counted)
	}
}

// A refused request has done nothing: it holds no place, and is judged again, also
// with another body.
func TestIdempotencyOfTheRefused(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"{}", "[]", "[{}]", "[{", `{"topic":"com.example.elsewhere","token":"` + goodToken + `","title":"x"}`} {
		tree := new(putTree)
		api := New(tree, Options{})
		api.Use(Settings{Keys: testKeys})
		h := api.Network()
		for range 2 {
			w := send(h, "sender-0123", "POST", "/v1/notifications", body, "Idempotency-Key", "k")
			if w.Header().Get("Idempotency-Replayed") != "" || w.Code == http.StatusAccepted && body != "[{}]" {
				t.Errorf("%s: %d %s", body, w.Code, w.Body)
			}
		}
		if api.answers.bytes != 0 || len(api.answers.shelves) != 0 {
			t.Errorf("%s: %d bytes kept", body, api.answers.bytes)
		}
		if w := send(h, "sender-0123", "POST", "/v1/notifications", notification(""), "Idempotency-Key", "k"); w.Code != http.StatusAccepted || len(tree.jobs) != 1 {
			t.Errorf("%s, then one that is right: %d %s", body, w.Code, w.Body)
		}
	}
}
