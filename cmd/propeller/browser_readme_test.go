package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// What README.md tells to try in a browser happens: a push is sent and delivered,
// a certificate is refused and the page says whose and why, and when it is taken
// again the push that waited is delivered. Only the ports are others.
func TestReadmeInABrowser(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(readme(t), "\n## In a browser\n")
	section, _, _ = strings.Cut(section, "\n## ")
	find := func(expression string) string {
		t.Helper()
		found := regexp.MustCompile(expression).FindStringSubmatch(section)
		if found == nil {
			t.Fatalf("README.md has no %s in the section on the page", expression)
		}
		return found[1]
	}
	config := find("(?s)```yaml\n(.*?)```")
	start := strings.Fields(find(`go run \./cmd/propeller (apns-sim .*?) *#`))
	fault := strings.Fields(find("with `(--fault .*?)`"))
	run := strings.Fields(find(`go run \./cmd/propeller (-c .*?) *#`))
	key := find(`auth_token: (\S+)`)
	find(`(curl -X POST -H 'Authorization: Bearer ` + key + `' http://127.0.0.1:8080/v1/reload)`)

	s := &webSite{site: &site{t: t, dir: t.TempDir()}}
	if err := os.Mkdir(filepath.Join(s.dir, ".propeller"), 0o700); err != nil {
		t.Fatal(err)
	}
	config = strings.Replace(config, "listen: 127.0.0.1:8080", "listen: 127.0.0.1:0", 1)
	configure := func(url string) { s.write(run[1], strings.Replace(config, "https://127.0.0.1:2197", url, 1)) }
	reload := func() {
		t.Helper()
		if status, text := s.ask(key, "POST", "/v1/reload", ""); status != 200 {
			t.Fatal(text)
		}
	}
	url, stop := startSim(t, s.dir, start...)
	configure(url)
	s.start(run...)
	b := newTab(t, s.url)
	b.signIn(key)

	b.sendFromForm(topic, token(1))
	b.says("#outcome", "delivered")

	stop()
	url, stop = startSim(t, s.dir, append(start, fault...)...)
	configure(url)
	reload()
	b.sendFromForm(otherTopic, token(2))
	b.open("/")
	b.says(row(otherTopic, "state"), "broken")
	b.says(row(otherTopic, "why"), "BadCertificate")
	if state := b.text(row(topic, "state")); state == "broken" {
		t.Errorf("the other app is %s, too", state)
	}

	stop()
	url, _ = startSim(t, s.dir, start...)
	configure(url)
	reload()
	b.says(row(otherTopic, "delivered"), "1")
	b.says(row(otherTopic, "state"), "running")
}

// sendFromForm sends a push from the page's form.
func (b *tab) sendFromForm(topic, token string) {
	b.t.Helper()
	b.click(`nav a[href$="/send"]`)
	b.waitFor("#send")
	b.choose("[name=app]", topic)
	b.fill("[name=token]", token)
	b.fill("[name=title]", "Hello")
	b.click("#send")
	b.says("#outcome", "job") // with its id
}

// startSim starts propeller apns-sim in a folder until stop is called, and returns
// its URL.
func startSim(t *testing.T, dir string, args ...string) (url string, stop func()) {
	t.Helper()
	sim := program(append(args, "--listen", "127.0.0.1:0")...)
	sim.Dir = dir
	out, err := sim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	ended := make(chan struct{})
	go func() { // it must not wait for who reads its counts
		defer close(ended)
		for lines.Scan() {
		}
		_ = sim.Wait()
	}()
	stop = func() {
		_ = sim.Process.Signal(syscall.SIGTERM) // or it has ended already
		<-ended
	}
	t.Cleanup(stop)
	_, url, ok := strings.Cut(lines.Text(), " at ")
	if !ok {
		t.Fatalf("apns-sim says %q", lines.Text())
	}
	return url, stop
}
