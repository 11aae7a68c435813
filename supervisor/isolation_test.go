package supervisor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
	"golang.org/x/net/http2"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
)

// brokenWay is a way for an app to be broken: its APNs, what differs in its
// configuration and in its jobs, and how it shows that it is broken so.
type brokenWay struct {
	name  string
	apns  apnstest.Options
	keys  []string // of the app
	job   string   // instead of ordinary jobs
	begin func(w *world, apns *apnstest.Server, topic string)
	shows func(s AppStatus) bool
}

func always(a apnstest.Answer) apnstest.Options { return apnstest.Options{Script: apnstest.Always(a)} }

// brokenWays are ten different ones. hook is a webhook that never answers.
func brokenWays(hook string) []brokenWay {
	ended := func(c apnsconn.Class) func(s AppStatus) bool {
		return func(s AppStatus) bool { return s.Counters.Ended(c) > 0 }
	}
	return []brokenWay{
		{
			name: "certificate refused in the handshake",
			apns: apnstest.Options{ClientCert: apnstest.ClientCertRequired},
			begin: func(w *world, apns *apnstest.Server, topic string) {
				w.write(topic+".pem", apns.ClientCertPEM(topic, apnstest.OtherAuthority()))
			},
			shows: func(s AppStatus) bool { return s.Health.State == Broken },
		},
		{
			name:  "certificate refused by answers",
			apns:  always(apnstest.Answer{Status: 403, Reason: "BadCertificate"}),
			shows: func(s AppStatus) bool { return s.Health.State == Broken },
		},
		{
			name:  "apns not reachable",
			begin: func(_ *world, apns *apnstest.Server, _ string) { apns.StopListening() },
			shows: func(s AppStatus) bool { return s.Counters.DialsFailed.Load() > 0 },
		},
		{
			name:  "apns silent",
			apns:  always(apnstest.Answer{Silence: true}),
			keys:  []string{"push_timeout: 1s"},
			shows: ended(apnsconn.Unknown),
		},
		{
			name:  "apns answers 500",
			apns:  always(apnstest.Answer{Status: 500, Reason: "InternalServerError"}),
			shows: ended(apnsconn.Unavailable),
		},
		{
			name:  "apns answers 429",
			apns:  always(apnstest.Answer{Status: 429, Reason: "TooManyRequests"}),
			shows: ended(apnsconn.Throttled),
		},
		{
			name: "GOAWAY after each answer",
			apns: always(apnstest.Answer{Then: func(c *apnstest.Conn) {
				c.Shutdown(http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown"))
			}}),
			shows: func(s AppStatus) bool { return s.Counters.GoAways.Load() > 0 },
		},
		{
			name:  "all tokens dead, and a webhook that hangs",
			apns:  always(apnstest.Answer{Status: 410, Reason: "Unregistered"}),
			keys:  []string{fmt.Sprintf("feedback: {webhook: %q, secret: 0123456789abcdef}", hook)},
			shows: ended(apnsconn.Token),
		},
		{
			name:  "wrong environment",
			apns:  always(apnstest.Answer{Status: 400, Reason: "BadDeviceToken"}),
			shows: func(s AppStatus) bool { return s.Health.State == Guarded },
		},
		{
			name:  "jobs that are garbage",
			job:   `{"token": 7, "nonsense"`,
			shows: func(s AppStatus) bool { return s.Counters.Buried.Load() > 0 },
		},
	}
}

// latencies is how long pushes took from their put to their arrival at APNs.
type latencies struct {
	mu    sync.Mutex
	put   map[string]time.Time // by token
	times []time.Duration
}

func (l *latencies) arrived(r *apnstest.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if put, ok := l.put[r.Token]; ok {
		l.times = append(l.times, time.Since(put))
	}
}

// next ends a series, and returns its median and its 99th percentile.
func (l *latencies) next() (p50, p99 time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.times)
	n := len(l.times)
	p50, p99 = l.times[n/2], l.times[n*99/100]
	l.times = nil
	return p50, p99
}

// Of 50 apps ten are broken, each in a way of its own: the other 40 deliver
// everything, once, and no worker of theirs is replaced or restarted.
func TestTenOfFiftyAppsBroken(t *testing.T) {
	const healthy, perApp = 40, 60
	lat := &latencies{put: make(map[string]time.Time)}
	w := newWorld(t, apnstest.Options{Delay: 5 * time.Millisecond, OnRequest: lat.arrived})
	release := make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hook.Close()
	defer close(release)

	config := ""
	var topics []string
	for i := range healthy {
		topics = append(topics, fmt.Sprintf("com.example.healthy%d", i))
		config += w.app(topics[i])
	}
	w.start(config)

	conn := w.bs.Dial()
	sent := 0
	// burst puts n jobs for each healthy app and as many for each broken one,
	// slowly enough for latencies to be those of single pushes, and returns the
	// healthy ones' when they are delivered.
	burst := func(n int, broken map[string]string) (p50, p99 time.Duration) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		put := func(tube, body string) {
			if _, err := gobeanstalk.NewTube(conn, tube).Put([]byte(body), 1024, 0, time.Minute); err != nil {
				t.Fatalf("put: %v", err)
			}
		}
		for k := range n {
			for _, topic := range topics {
				<-tick.C
				lat.mu.Lock()
				lat.put[token(sent)] = time.Now()
				lat.mu.Unlock()
				put(topic, jobBody(sent))
				sent++
			}
			for topic, body := range broken {
				if body == "" {
					body = jobBody(1_000_000 + k)
				}
				put(topic, body)
			}
		}
		for _, topic := range topics {
			w.empty(topic)
		}
		return lat.next()
	}
	burst(1, nil) // opens the connections
	p50, p99 := burst(perApp, nil)
	t.Logf("%d pushes of %d apps alone: from put to APNs p50 %v, p99 %v", perApp*healthy, healthy, p50, p99)

	broken := make(map[string]string) // topic → job, if not an ordinary one
	ways := brokenWays(hook.URL)
	for i, way := range ways {
		topic := fmt.Sprintf("com.example.broken%d", i)
		broken[topic] = way.job
		apns := apnstest.NewServer(way.apns)
		defer apns.Close()
		w.write(topic+".ca", apns.CACertPEM())
		w.write(topic+".pem", apns.ClientCertPEM(topic))
		if way.begin != nil {
			way.begin(w, apns, topic)
		}
		keys := append([]string{"topic: " + topic, "cert: " + topic + ".pem", "server: " + apns.URL, "ca_file: " + topic + ".ca"}, way.keys...)
		config += "  - {" + strings.Join(keys, ", ") + "}\n"
	}
	w.apply(config)
	burst(perApp/2, broken)
	for i, way := range ways {
		topic := fmt.Sprintf("com.example.broken%d", i)
		w.until(way.name, func() bool { return way.shows(w.status(topic)) })
	}
	with50, with99 := burst(perApp, broken) // now that each is broken
	t.Logf("the same beside %d broken apps: p50 %v (× %.2f), p99 %v (× %.2f)", len(ways),
		with50, float64(with50)/float64(p50), with99, float64(with99)/float64(p99))

	// Far above what a busy machine does to it. What all of them waiting for a
	// broken app would do, which takes its push_timeout of a second at least, the
	// median shows even where the machine itself stands still for a second.
	if limit := max(20*p99, 2*time.Second); with99 > limit {
		t.Errorf("p99 %v beside broken apps, %v without", with99, p99)
	}
	if limit := max(20*p50, 500*time.Millisecond); with50 > limit {
		t.Errorf("p50 %v beside broken apps, %v without", with50, p50)
	}

	w.eachOnce(sent)
	for _, topic := range topics {
		s := w.status(topic)
		if s.Health.State.Trouble() || s.Counters.PossibleDuplicates.Load() != 0 || s.Counters.Dials.Load() != 1 {
			t.Errorf("%s: %s, %d possible duplicates, %d dials", topic, s.Health, s.Counters.PossibleDuplicates.Load(), s.Counters.Dials.Load())
		}
		if s.Steps.Replaced.Load()+s.Steps.Restarted.Load() != 0 {
			t.Errorf("%s: the watchdog has acted", topic)
		}
	}
	if w.log.contains("ended unexpectedly") || w.log.contains("service panicked") {
		t.Error("a worker was restarted")
	}
}
