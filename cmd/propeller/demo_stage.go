package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/worker/feedback"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// stage is what stands around the daemon of a demonstration: a folder with its
// configuration, a stand-in for Apple, a server of the user's.
type stage struct {
	screen *screen
	dir    string // temporary
	file   string // the configuration
	apns   *apnstest.Server
	secret []byte // of the webhook

	server *http.Server
	served sync.WaitGroup
}

// demoRTT is about what a push takes to Apple and back.
const demoRTT = 40 * time.Millisecond

func newStage(out *screen) (s *stage, err error) {
	s = &stage{screen: out, secret: fmt.Appendf(nil, "%s", rand.Text())}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "propeller-demo-"); err != nil {
		return s, err
	}
	s.apns, err = apnstest.Start(apnstest.Options{
		ClientCert: apnstest.ClientCertRequired, Delay: demoRTT, Record: -1, Script: recovering(),
	})
	if err != nil {
		return s, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return s, err
	}
	s.server = &http.Server{Handler: http.HandlerFunc(s.told), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	s.served.Go(func() { _ = s.server.Serve(ln) }) // ends by close
	return s, s.write("http://" + ln.Addr().String() + "/feedback")
}

// write writes the configuration and what it names.
func (s *stage) write(webhook string) error {
	s.file = filepath.Join(s.dir, "propeller.yaml")
	for name, text := range map[string]string{
		"ca.pem":          string(s.apns.CACertPEM()),
		demoNews + ".pem": string(s.apns.ClientCertPEM(demoNews)),
		demoChat + ".pem": string(s.apns.ClientCertPEM(demoChat)),
		"secret":          string(s.secret),
		"propeller.yaml":  fmt.Sprintf(demoConfig, s.apns.URL, webhook, demoNews, demoChat),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// load loads the configuration. That the stand-in's certificates are not
// Apple's needs no warning.
func (s *stage) load() (*config.Config, error) {
	cfg, err := config.Load(s.file)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Apps {
		cfg.Apps[i].Warnings = nil
	}
	return cfg, nil
}

// demoConfig is the configuration. Pauses are short, to be seen.
const demoConfig = `queue: embedded://./queue
http: {listen: "127.0.0.1:0"}
log: {pushes: all}
shutdown_timeout: 5s
defaults:
  server: %s
  ca_file: ca.pem
  proxy: none
  push_timeout: 4s
  retry: {min: 1s, max: 3s, give_up_after: 1h}
  feedback: {webhook: "%s", secret_file: secret}
apps:
  - {topic: %[3]s, cert: %[3]s.pem, workers: 2}
  - {topic: %[4]s, cert: %[4]s.pem}
`

// recovering is apnstest.TokenCodes, but for troubles that pass: the third try
// of such a push is well.
func recovering() apnstest.Script {
	var mu sync.Mutex
	tried := make(map[string]int) // by token, until it is well
	return func(r *apnstest.Request) apnstest.Answer {
		a := apnstest.TokenCodes(r)
		if a.Status != http.StatusTooManyRequests && a.Status < 500 {
			return a
		}
		mu.Lock()
		defer mu.Unlock()
		if tried[r.Token]++; tried[r.Token] > 2 {
			delete(tried, r.Token)
			return apnstest.Answer{}
		}
		return a
	}
}

// maxFeedback bounds what the webhook reads: the daemon's batches are smaller.
const maxFeedback = 1 << 20

// told is the webhook: what a user's server would do with feedback.
func (s *stage) told(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFeedback))
	if err == nil {
		var hook *standardwebhooks.Webhook
		if hook, err = standardwebhooks.NewWebhookRaw(s.secret); err == nil {
			err = hook.Verify(body, r.Header)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var batch struct {
		Records []feedback.Record `json:"records"`
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, f := range batch.Records {
		what := "job " + f.Job + " will not arrive"
		if f.Class == "token" {
			what = "token " + f.Token[:min(8, len(f.Token))] + "… is dead, take it off your list"
		}
		s.screen.event("feedback", f.Topic, fmt.Sprintf("your server is told: %s: %s", what, f.Reason))
	}
}

// close ends all of it and removes the folder.
func (s *stage) close() error {
	var err error
	if s.server != nil {
		err = s.server.Close()
	}
	s.served.Wait()
	if s.apns != nil {
		s.apns.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
