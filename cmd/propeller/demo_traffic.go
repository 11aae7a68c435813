package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"propeller/queue"
)

// act is one job of the traffic: what it shows, and how it is made.
type act struct {
	topic string
	says  string // what a person should look for
	delay time.Duration
	// tokens end so, which makes the stand-in answer accordingly; apnstest's
	// TokenCodes. Several are one job.
	tokens []string
	more   map[string]any // other keys of the job
}

// acts come round and round.
var acts = []act{
	{topic: demoNews, says: "to a phone", tokens: []string{""}},
	{topic: demoChat, says: "to another app's phone", tokens: []string{""}},
	{topic: demoNews, says: "to 5 phones in one job; on the third the app was deleted", tokens: []string{"", "", "fa170410", "", ""}},
	{topic: demoChat, says: "while Apple is unwell", tokens: []string{"fa170503"}},
	{topic: demoNews, says: "to a phone where the app was deleted", tokens: []string{"fa170410"}},
	{topic: demoNews, says: "not before 3 seconds have passed", delay: 3 * time.Second, tokens: []string{""}},
	{topic: demoChat, says: "that no program should put: it has a key that there is not", tokens: []string{""}, more: map[string]any{"tittle": "Hello"}},
	{topic: demoNews, says: "to a phone that got too many", tokens: []string{"fa170429"}},
	{topic: demoChat, says: "to a phone on a slow day: 1.5 s", tokens: []string{"fa171150"}},
	{topic: demoChat, says: "that is too large for Apple", tokens: []string{"fa170413"}},
}

// traffic puts jobs on the daemon's queue until ctx ends.
func (d *demo) traffic(ctx context.Context) {
	var q queue.Queue
	select {
	case q = <-d.queue:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		a := &acts[(n-1)%len(acts)]
		id, err := q.Put(ctx, a.topic, a.job(n), queue.PutOptions{Delay: a.delay})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.screen.event("error", a.topic, "not put: "+err.Error())
		default:
			d.screen.event("put", a.topic, fmt.Sprintf("job %s: a push %s", id, a.says))
		}
	}
}

// job is the nth job put, as JSON.
func (a *act) job(n int) []byte {
	tokens := make([]string, len(a.tokens))
	for i, code := range a.tokens {
		tokens[i] = demoToken(n*10+i, code)
	}
	job := map[string]any{"title": "Hello", "body": fmt.Sprintf("This is push %d.", n)}
	if job["token"] = tokens[0]; len(tokens) > 1 {
		delete(job, "token")
		job["tokens"] = tokens
	}
	for k, v := range a.more {
		job[k] = v
	}
	text, err := json.Marshal(job)
	if err != nil { // of strings: cannot be
		panic(err)
	}
	return text
}

// demoToken is the nth device token, with an end that the stand-in knows.
func demoToken(n int, end string) string {
	const digits = 64
	text := fmt.Sprintf("%08x", uint32(n+1)*2654435761) // spread, so that 8 characters tell them apart
	for len(text) < digits {
		text += text
	}
	return text[:digits-len(end)] + end
}
