package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver is the endpoint of the webhook. It checks each request as
// docs/feedback.md tells receivers to, with code of its own, and misbehaves at
// times. A record counts as received once its request was answered 200.
type receiver struct {
	at   *site
	book *book

	mu       sync.Mutex
	rng      *rand.Rand
	calm     bool
	srv      *http.Server // nil while nobody listens
	served   chan struct{}
	answers  map[string]int
	refused  []string // requests that are not as promised
	inFlight int
	together int // requests at once
}

func newReceiver(at *site, b *book, rng *rand.Rand) *receiver {
	return &receiver{at: at, book: b, rng: rng, answers: make(map[string]int)}
}

// listen begins to serve.
func (r *receiver) listen() error {
	l, err := net.Listen("tcp", r.at.hookAddr)
	if err != nil {
		return fmt.Errorf("the webhook's receiver: %w", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second}
	served := make(chan struct{})
	r.mu.Lock()
	r.srv, r.served = srv, served
	r.mu.Unlock()
	go func() {
		defer close(served)
		_ = srv.Serve(l) // until leave
	}()
	return nil
}

// leave closes the listener and every connection.
func (r *receiver) leave() {
	r.mu.Lock()
	srv, served := r.srv, r.served
	r.srv = nil
	r.mu.Unlock()
	if srv != nil {
		srv.Close()
		<-served
	}
}

// soothe ends the misbehaviour.
func (r *receiver) soothe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calm = true
}

// maxHookBody bounds a request: many times what 100 records need.
const maxHookBody = 1 << 20

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxHookBody))
	if err != nil {
		return // the daemon was killed, or the receiver left
	}
	r.arrives(1)
	defer r.arrives(-1)
	records, err := checkHook(req, body)
	if err != nil {
		r.mu.Lock()
		find(&r.refused, "a webhook request: %v: %.200q", err, body)
		r.mu.Unlock()
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	r.answer(req.Context(), w, records)
}

// arrives counts the requests at once.
func (r *receiver) arrives(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight += n
	r.together = max(r.together, r.inFlight)
}

// checkHook verifies a request and returns its records.
func checkHook(req *http.Request, body []byte) ([]json.RawMessage, error) {
	err := errors.New("no secrets")
	for _, secret := range hookSecrets() {
		var hook *standardwebhooks.Webhook
		if hook, err = standardwebhooks.NewWebhookRaw([]byte(secret)); err == nil {
			err = hook.Verify(body, req.Header)
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	var batch struct{ Records []json.RawMessage }
	if err := json.Unmarshal(body, &batch); err != nil {
		return nil, err
	}
	if len(batch.Records) == 0 {
		return nil, errors.New("no records")
	}
	return batch.Records, nil
}

// hookMoods are how the receiver answers, per mille; the rest are 200.
func hookMoods() []share[string] {
	return []share[string]{
		{"200", 750}, {"500", 80}, {"slow", 60}, {"close", 40}, {"close after", 20}, {"301", 10}, {"413", 10}, {"503 retry-after", 10}, {"huge", 20},
	}
}

// answer throws the dice for what the daemon is told.
func (r *receiver) answer(ctx context.Context, w http.ResponseWriter, records []json.RawMessage) {
	r.mu.Lock()
	mood := draw(r.rng, hookMoods())
	pause := time.Duration(r.rng.IntN(1500)) * time.Millisecond
	if r.calm {
		mood = "200"
	}
	r.answers[mood]++
	r.mu.Unlock()
	switch mood {
	case "500":
		http.Error(w, "oh", http.StatusInternalServerError)
		return
	case "301":
		w.Header().Set("Location", "/elsewhere") // nobody shall follow it
		w.WriteHeader(http.StatusMovedPermanently)
		return
	case "413":
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
		return
	case "503 retry-after":
		w.Header().Set("Retry-After", "1")
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	case "close":
		panic(http.ErrAbortHandler)
	case "slow":
		sleep(ctx, pause)
	}
	if ctx.Err() != nil {
		return // nobody hears the answer
	}
	if err := r.book.add("webhook", records...); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	switch mood {
	case "close after": // kept, but the daemon cannot know
		panic(http.ErrAbortHandler)
	case "huge":
		for range 300 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}
}

// hand has the receiver go away.
func (r *receiver) hand(rng *rand.Rand) *hand {
	h := &hand{rng: rng, mean: 6 * time.Second}
	h.acts = []act{{name: "webhook away", weight: 1, do: func(_, faults context.Context) error {
		r.at.note("webhook away")
		r.leave()
		sleep(faults, h.upTo(4*time.Second))
		r.at.note("webhook back")
		return r.listen()
	}}}
	return h
}
