package main

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// rate is how many of 1000 requests get an answer.
type rate struct {
	name     string
	perMille int
}

// profiles are the moods of the APNs side.
var profiles = map[string][]rate{
	"calm": nil,
	"usual": {
		{"410", 5}, {"429", 10}, {"500", 10}, {"503", 10}, {"503 Shutdown", 1}, {"html", 5}, {"202", 2}, {"418", 1},
		{"silence", 3}, {"refused", 5}, {"internal", 2}, {"abort", 1}, {"junk", 1}, {"leave", 1}, {"slow", 200},
		{"body", 10}, {"split", 50},
	},
	"storm": {
		{"410", 10}, {"429", 80}, {"500", 80}, {"503", 80}, {"503 Shutdown", 5}, {"html", 40}, {"202", 10}, {"418", 2},
		{"silence", 30}, {"refused", 40}, {"internal", 15}, {"abort", 5}, {"junk", 5}, {"leave", 5}, {"slow", 300},
		{"body", 20}, {"split", 50},
	},
	"down":     {{"503", 950}},
	"broken":   {{"500", 950}},
	"silent":   {{"silence", 500}, {"slow", 300}},
	"refusing": {{"refused", 900}},
	"closed":   {{"refused", 1000}}, // every stream is refused
	"leaving":  {{"leave", 1000}},   // a GOAWAY below every stream that it can still refuse
}

// answers decides what each request is told.
type answers struct {
	leave func(conn int, stream uint32)

	mu      sync.Mutex
	rng     *rand.Rand
	rates   []rate
	only    string // what every request gets, whatever its token; "" leaves it to the rates
	refused string // topic whose certificate is refused
	until   time.Time
	leaving map[int]uint32   // streams from this one on are ignored, by connection
	decided map[place]answer // between the script and OnRequest, of the same goroutine
}

type place struct {
	conn   int
	stream uint32
}

type answer struct {
	name      string
	delivered bool
}

// deadly says that the answer called name means that the device token must not
// be used again.
func deadly(name string) bool { return name == "410" || name == "400 BadDeviceToken" }

func newAnswers(seed uint64, profile string, leave func(int, uint32)) *answers {
	a := &answers{leave: leave, rng: rand.New(rand.NewPCG(seed, 1)), leaving: make(map[int]uint32), decided: make(map[place]answer)}
	a.set(profile)
	return a
}

func (a *answers) set(profile string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rates, a.only = profiles[profile], ""
	if len(a.rates) == 1 && a.rates[0].perMille == 1000 {
		a.only = a.rates[0].name
	}
	if profile == "calm" {
		a.refused = ""
	}
}

// refuse has an app's certificate refused for d.
func (a *answers) refuse(topic string, d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused, a.until = topic, time.Now().Add(d)
}

// named returns what the script decided for r. A request that was refused
// before it came to the script is named by its status.
func (a *answers) named(r *apnstest.Request) (name string, delivered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := place{r.Conn, r.Stream}
	d, ok := a.decided[at]
	delete(a.decided, at)
	if !ok {
		return "invalid: " + r.Answer.Reason, false
	}
	return d.name, d.delivered
}

func (a *answers) script(r *apnstest.Request) apnstest.Answer {
	a.mu.Lock()
	name := a.choose(r)
	out, delivered := a.build(name, r)
	a.decided[place{r.Conn, r.Stream}] = answer{name, delivered}
	leaves := name == "leave"
	if leaves {
		a.leaving[r.Conn] = r.Stream
	}
	a.mu.Unlock()
	if leaves {
		a.leave(r.Conn, r.Stream)
	}
	return out
}

// choose throws the dice. It needs a.mu.
func (a *answers) choose(r *apnstest.Request) string {
	if first, ok := a.leaving[r.Conn]; ok && r.Stream >= first {
		return "ignored" // GOAWAY has said so
	}
	switch {
	case a.only != "":
		return a.only
	case a.refused != "" && r.Header.Get("apns-topic") == a.refused && r.At.Before(a.until):
		return "403"
	case strings.HasSuffix(r.Token, dead.end()), strings.HasSuffix(r.Token, grave.end()):
		return "410"
	case strings.HasSuffix(r.Token, alien.end()):
		return "400 BadDeviceToken"
	case strings.HasSuffix(r.Token, bad.end()):
		return "400 PayloadEmpty"
	case a.rates != nil && strings.HasSuffix(r.Token, reborn.end()) && a.rng.IntN(2) == 0:
		return "410 of old"
	}
	n := a.rng.IntN(1000)
	for _, rt := range a.rates {
		if n -= rt.perMille; n < 0 {
			return rt.name
		}
	}
	return "200"
}

// build makes the answer called name, and says whether the device gets the
// push. Where the daemon cannot know, a coin decides. It needs a.mu.
func (a *answers) build(name string, r *apnstest.Request) (out apnstest.Answer, delivered bool) {
	coin := a.rng.IntN(2) == 0
	switch name {
	case "200":
		return apnstest.Answer{}, true
	case "slow":
		return apnstest.Answer{Delay: time.Duration(a.rng.IntN(400)) * time.Millisecond}, true
	case "body":
		return apnstest.Answer{Status: 200, Body: []byte("<ok/>")}, true
	case "split":
		return apnstest.Answer{SplitHeaders: 3, Pad: 7, Informational: []int{103}}, true
	case "400 PayloadEmpty":
		return apnstest.Answer{Reason: "PayloadEmpty"}, false
	case "400 BadDeviceToken":
		return apnstest.Answer{Reason: "BadDeviceToken"}, false
	case "403":
		return apnstest.Answer{Reason: "BadCertificate"}, false
	case "410":
		return apnstest.Answer{Status: 410, Timestamp: r.At}, false
	case "410 of old": // before the job says that the app registered the token
		return apnstest.Answer{Status: 410, Timestamp: r.At.Add(-time.Hour)}, false
	case "429":
		return apnstest.Answer{Status: 429}, false
	case "500":
		return apnstest.Answer{Status: 500}, false
	case "503":
		return apnstest.Answer{Status: 503}, false
	case "503 Shutdown":
		return apnstest.Answer{Reason: "Shutdown"}, false
	case "html":
		return apnstest.Answer{Status: 502, Body: []byte("<html>bad gateway</html>")}, false
	case "418":
		return apnstest.Answer{Status: 418, Body: []byte(`{"reason":`)}, false
	case "202": // no status of APNs: who can tell
		return apnstest.Answer{Status: 202}, coin
	case "silence":
		return apnstest.Answer{Silence: true}, coin
	case "ignored", "leave":
		return apnstest.Answer{Silence: true}, false
	case "refused":
		return apnstest.Answer{Reset: new(http2.ErrCodeRefusedStream)}, false
	case "internal":
		return apnstest.Answer{Reset: new(http2.ErrCodeInternal)}, coin
	case "abort":
		return apnstest.Answer{Raw: func(*http2.Framer, uint32) {}, Then: (*apnstest.Conn).CloseAbruptly}, coin
	case "junk": // HEADERS that no HPACK decoder takes
		return apnstest.Answer{Raw: func(fr *http2.Framer, stream uint32) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}}, coin
	}
	panic("chaos: answer " + name)
}
