package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"propeller/apnsconn"
	"propeller/worker/job"
)

// Lint says what would become of a notification.
type Lint struct {
	OK    bool         `json:"ok"`
	Error *ResultError `json:"error,omitempty"` // why it would be refused

	Jobs         int               `json:"jobs,omitempty"`    // that it would be
	Pushes       int               `json:"pushes,omitempty"`  // that those would be
	Delay        int64             `json:"delay,omitempty"`   // seconds before they may be sent
	Headers      map[string]string `json:"headers,omitempty"` // of the first push, but for its path and id
	Payload      json.RawMessage   `json:"payload,omitempty"` // as it would be sent
	PayloadBytes int               `json:"payload_bytes,omitempty"`
	Malformed    []ResultError     `json:"malformed,omitempty"` // tokens that are none, at most 20
	Warnings     []string          `json:"warnings,omitempty"`  // of what works, and is perhaps not what was meant
}

// lint looks at a notification without putting it.
func (a *API) lint(w http.ResponseWriter, r *http.Request, c *client) {
	if !c.limit.Allow() {
		tooMany(c).write(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxTime)
	defer cancel()
	body, free, err := a.body(ctx, w, r, c, largeBody)
	defer free()
	if err != nil {
		problemOf(bodyStatus(err), "", "the body: "+bodyFault(err)).write(w)
		return
	}
	writeJSON(w, http.StatusOK, a.lintOf(c, body))
}

func (a *API) lintOf(c *client, body []byte) Lint {
	e, err := job.ParseEnvelope(body, time.Now())
	if err != nil {
		return Lint{Error: errorOf(err)}
	}
	return a.lintEnvelope(c, e)
}

func (a *API) lintEnvelope(c *client, e job.Envelope) Lint {
	jobs, job, app, err := a.check(c, e)
	if err != nil {
		return Lint{Error: errorOf(err)}
	}
	n := &job.Notification
	out := Lint{
		OK: true, Jobs: len(jobs), Pushes: max(1, len(job.Tokens)), Delay: int64(e.Delay / time.Second),
		Headers: headersOf(n), Payload: n.Payload, PayloadBytes: len(n.Payload), Warnings: app.Warnings(&job),
	}
	for _, bad := range job.Malformed[:min(len(job.Malformed), maxMalformed)] {
		out.Malformed = append(out.Malformed, ResultError{Key: bad.Err.Key, Detail: bad.Err.Why})
	}
	return out
}

// headersOf are the headers of a push that are sent.
func headersOf(n *apnsconn.Notification) map[string]string {
	h := map[string]string{"apns-topic": n.Topic, "apns-push-type": n.PushType}
	if n.Priority != 0 {
		h["apns-priority"] = strconv.Itoa(n.Priority)
	}
	if n.Expiration != nil {
		h["apns-expiration"] = strconv.FormatInt(*n.Expiration, 10)
	}
	if n.CollapseID != "" {
		h["apns-collapse-id"] = n.CollapseID
	}
	if n.ChannelID != "" {
		h["apns-channel-id"] = n.ChannelID
	}
	return h
}
