package httpapi

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of wrong keys, over all connections. They make guessing dear and seen; what
// makes it hopeless is the length of the keys. A right key is never refused, since
// strangers may have the same address: that of a proxy.
const (
	wrongRate  = 10 // are answered a second
	wrongBurst = 20
	// wrongWait is how long an answer waits for its turn; one that would wait
	// longer is not given, and the connection ends.
	wrongWait = 2 * time.Second
	// wrongLog is how often wrong keys have a line in the log.
	wrongLog = time.Minute
)

// wrongKeys are those of late, in headers and in forms.
type wrongKeys struct {
	log   *slog.Logger
	limit *rate.Limiter

	mu       sync.Mutex
	n        int    // that the log does not tell of yet
	from, at string // the last one's address, and request as routes have it
	waits    bool   // for the next line
}

func newWrongKeys(log *slog.Logger) *wrongKeys {
	return &wrongKeys{log: log, limit: rate.NewLimiter(wrongRate, wrongBurst)}
}

// wrong notes that a request from an address has shown a key that is none, and
// returns when it may be answered. If there are too many it is not: its end comes by
// http.ErrAbortHandler.
func (k *wrongKeys) wrong(r *http.Request, from string) {
	k.note(from, r.Pattern)
	r.Form, r.PostForm, r.MultipartForm = nil, nil, nil // which may be large, while it waits
	turn := k.limit.Reserve()
	if turn.Delay() > wrongWait {
		turn.Cancel()
		sendAway(r)
		panic(http.ErrAbortHandler)
	}
	timer := time.NewTimer(turn.Delay())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-ending(r):
	}
}

func (k *wrongKeys) note(from, at string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	k.from, k.at = from, at
	if !k.waits {
		k.tell()
	}
}

// tell logs the wrong keys since the last time, and sees to the next time.
func (k *wrongKeys) tell() {
	k.log.Warn("http: wrong keys", "from", k.from, "at", k.at, "keys", k.n)
	k.n, k.waits = 0, true
	time.AfterFunc(wrongLog, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.waits = k.n > 0; k.waits {
			k.tell()
		}
	})
}
