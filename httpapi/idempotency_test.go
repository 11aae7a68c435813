package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
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
	first, _ := k.begin("first", sum, time.Now())
	for i := range 3 * maxKept {
		e, f := k.begin(fmt.Sprint(i), sum, time.Now())
		if f != answerNew {
			t.Fatal(f)
		}
		k.finish(e, answer{}, true)
	}
	if _, f := k.begin("first", sum, time.Now()); f != answerPending {
		t.Errorf("%v", f)
	}
	if len(k.order) > maxKept {
		t.Errorf("%d answers", len(k.order))
	}
	k.finish(first, answer{}, true)
	if _, f := k.begin("first", sum, time.Now()); f != answerKept {
		t.Errorf("%v", f)
	}
}
