package httpapi

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of wrong keys. They make guessing dear and seen; what makes it hopeless
// is the length of the keys. A right key is never refused, since strangers may
// have the same address: that of a proxy.
const (
	// guessBurst and guessEvery bound the wrong keys of one address that are
	// answered at once: so many, then one each guessEvery.
	guessBurst = 10
	guessEvery = 6 * time.Second
	// guessWait is how long an answer to one more is held back, and maxHeld for
	// how many requests at once; each holds its connection. All of them lose it.
	guessWait = time.Second
	maxHeld   = 64
	// guessLog is how often the wrong keys of one address have a line in the log.
	// It takes no longer until guessBurst are free again.
	guessLog = guessBurst * guessEvery
	// maxAddrs bounds the addresses that are told apart; those beyond are one.
	maxAddrs = 1000
)

// guesses are the wrong keys of late, in headers and in forms.
type guesses struct {
	log  *slog.Logger
	wait time.Duration // guessWait
	held chan struct{} // a place for each answer that is held back

	mu     sync.Mutex
	byAddr map[string]*guesser // at most maxAddrs and otherAddrs
}

// guesser is who has shown wrong keys within the last guessLog.
type guesser struct {
	limit *rate.Limiter
	from  string // the last address
	at    string // the last request, as routes have it
	n     int    // wrong keys that the log does not tell of yet
}

// otherAddrs stands for the addresses beyond maxAddrs.
const otherAddrs = "others"

func newGuesses(log *slog.Logger) *guesses {
	return &guesses{log: log, wait: guessWait, held: make(chan struct{}, maxHeld), byAddr: make(map[string]*guesser)}
}

// wrong notes that a request from an address has shown a key that is none, and
// returns when it may be answered.
func (g *guesses) wrong(w http.ResponseWriter, r *http.Request, from string) {
	if g.note(from, r.Pattern) {
		return
	}
	w.Header().Set("Connection", "close") // over HTTP/2, too: the next guess takes another one
	select {
	case g.held <- struct{}{}:
		defer func() { <-g.held }()
	default:
		return
	}
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-ending(r):
	}
}

// note counts a wrong key, and says whether it may be answered at once.
func (g *guesses) note(from, at string) (atOnce bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	addr := network(from)
	one := g.byAddr[addr]
	if one == nil && len(g.byAddr) >= maxAddrs {
		addr = otherAddrs
		one = g.byAddr[addr]
	}
	first := one == nil
	if first {
		one = &guesser{limit: rate.NewLimiter(rate.Every(guessEvery), guessBurst)}
		g.byAddr[addr] = one
	}
	one.from, one.at = from, at
	one.n++
	if first {
		g.tell(addr, one)
	}
	return one.limit.Allow()
}

// tell logs the wrong keys since the last time, and sees to the next time.
func (g *guesses) tell(addr string, one *guesser) {
	g.log.Warn("http: wrong keys", "from", one.from, "at", one.at, "keys", one.n)
	one.n = 0
	time.AfterFunc(guessLog, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if one.n > 0 {
			g.tell(addr, one)
			return
		}
		delete(g.byAddr, addr)
	})
}

// network is what one client has: an IPv4 address, or the /64 of an IPv6 one.
func network(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Is4() || ip.Is4In6() {
		return addr
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return addr
	}
	return p.String()
}
