package supervisor

import (
	"os"
	"slices"
	"testing"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/worker"
)

func TestLanesAreForAServerAndCredential(t *testing.T) {
	t.Parallel()
	same := func() config.App {
		return config.App{Name: "a", Topic: topic, Server: "sandbox", Addr: "a:443", Certificate: &apnsconn.Certificate{Fingerprint: [32]byte{1}}}
	}
	l := make(lanes)
	old := same()
	first := l.of(&old)
	for name, change := range map[string]func(c *config.App){
		"topic":       func(c *config.App) { c.Topic = "com.example.other" },
		"server":      func(c *config.App) { c.Server = "production" },
		"address":     func(c *config.App) { c.Addr = "b:443" },
		"certificate": func(c *config.App) { c.Certificate = &apnsconn.Certificate{Fingerprint: [32]byte{2}} },
		"a key":       func(c *config.App) { c.Certificate, c.SigningKey = nil, &apnsconn.Key{ID: keyA} },
	} {
		c := same()
		change(&c)
		if l.of(&c) == first {
			t.Errorf("%s: shared", name)
		}
	}
	for name, change := range map[string]func(c *config.App){
		"name and tube": func(c *config.App) { c.Name, c.Tube = "b", "b" },
		"workers, rate": func(c *config.App) { c.Workers, c.MaxRate = 7, 7 },
	} {
		c := same()
		change(&c)
		if l.of(&c) != first {
			t.Errorf("%s: not shared", name)
		}
	}
	// Renewed by an intermediate only.
	apns, dir := apnstest.NewServer(apnstest.Options{}), t.TempDir()
	defer apns.Close()
	was, renewed, pair := same(), same(), apns.ClientCertPEM(topic)
	was.Certificate = certificateOf(t, dir+"/was.pem", pair)
	renewed.Certificate = certificateOf(t, dir+"/renewed.pem", slices.Concat(pair, apns.CACertPEM()))
	if l.of(&renewed) != l.of(&was) {
		t.Error("not shared with another intermediate")
	}
	if renewed.Same(&was) || was.Same(&renewed) {
		t.Error("another intermediate is no change of the app")
	}
	l.forget(map[string]*app{"a": {cfg: &old}})
	if len(l) != 1 || l.of(&old) != first {
		t.Errorf("%d are remembered, want the one in use", len(l))
	}
}

// certificateOf loads the certificate that data, put at path, has.
func certificateOf(t *testing.T, path string, data []byte) *apnsconn.Certificate {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := apnsconn.LoadCertificate(path, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Lanes share across reloads: one that changes in other ways goes on sharing, one whose credential
// changes finds what is known of the new one, and nothing is kept of a credential without apps.
func TestLanesOverReloads(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	const other = "com.example.other"
	w.cert(topic)
	w.write("renewed.pem", w.apns.ClientCertPEM(topic))
	w.cert(other)
	a := "  - {topic: " + topic + ", cert: " + topic + ".pem}\n"
	lane := func(name, more string) string {
		return "  - {name: " + name + ", topic: " + topic + ", " + more + "}\n"
	}
	of := func(name string) *worker.Lanes {
		w.sup.mu.Lock()
		defer w.sup.mu.Unlock()
		return w.sup.apps[name].shared.Lanes
	}
	w.start(a + lane("bulk", "cert: "+topic+".pem") + lane("late", "cert: renewed.pem"))
	first, second := of(topic), of("late")
	if of("bulk") != first || second == first {
		t.Fatal("not the lanes of one certificate share, or others do")
	}
	w.apply(a + lane("bulk", "cert: "+topic+".pem, tube: elsewhere, in_flight: 7, workers: 2") + lane("late", "cert: renewed.pem"))
	if of("bulk") != first || of(topic) != first {
		t.Error("a changed tube ends the sharing")
	}
	w.apply(a + lane("bulk", "cert: renewed.pem") + lane("late", "cert: renewed.pem"))
	if of("bulk") != second || of("late") != second || of(topic) != first {
		t.Error("a lane that takes another credential does not find what is known of it")
	}
	w.apply(lane("bulk", "cert: renewed.pem") + "  - {topic: " + other + ", cert: " + other + ".pem}\n")
	if of("bulk") != second || len(w.sup.lanes) != 2 {
		t.Errorf("%d are remembered, want 2", len(w.sup.lanes))
	}
}

// APNs refuses one lane: the state of the other says so too, and is well again as soon as that is over.
func TestLanesShowTheSameState(t *testing.T) {
	w := newWorld(t, apnstest.Options{Script: func(*apnstest.Request) apnstest.Answer {
		return apnstest.Answer{Status: 403, Reason: "InvalidProviderToken"}
	}})
	w.start(w.app(topic) + "  - {name: bulk, topic: " + topic + ", cert: " + topic + ".pem}\n")
	w.put("bulk", jobBody(0))
	for _, s := range []State{Broken, Idle} {
		if s == Idle {
			w.apns.SetScript(nil)
			if err := w.sup.Resume(topic); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{topic, "bulk"} {
			w.until(name+" is "+string(s), func() bool {
				for _, st := range w.sup.Status() {
					if st.Name == name {
						return (st.Health.State == Broken) == (s == Broken)
					}
				}
				return false
			})
		}
	}
	w.empty("bulk")
}

// A changed max_rate applies at once, to the connections that are there, and neither it nor the
// wait for it is a stall.
func TestMaxRateIsLive(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.putMany(topic, 200)
	w.start(w.app(topic, "max_rate: 10"))
	time.Sleep(2 * time.Second)
	if n := w.apns.Count(); n < 15 || n > 25 {
		t.Errorf("%d pushes within two seconds at 10 a second", n)
	}
	s := w.status(topic).Workers[0]
	if s.Cause != worker.MaxRateReached || !s.Paced || s.Reserved > 20 {
		t.Errorf("%+v", s)
	}
	v := viewOf(s, available{ready: 150, known: true})
	if v.reserved != 0 || v.ready != 0 || !v.known {
		t.Errorf("the watchdog sees work: %+v", v)
	}
	s.Paced = false // the limiter lets nobody pass
	if v := viewOf(s, available{ready: 150, known: true}); v.reserved == 0 || v.ready == 0 {
		t.Errorf("the watchdog sees no work: %+v", v)
	}
	w.apply("  - {topic: " + topic + ", cert: " + topic + ".pem}\n")
	changed := time.Now()
	w.empty(topic)
	w.eachOnce(200)
	if took := time.Since(changed); took > 8*time.Second {
		t.Errorf("the rest took %v without max_rate, which is half of what it takes with it", took)
	}
	if n := w.apns.Dials(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
