package jetstream

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"propeller/queue"
	"propeller/queue/queuetest"
)

// runServer starts a server with some lines of configuration.
func runServer(t *testing.T, conf string) *server.Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "n.conf")
	if !strings.Contains(conf, "jetstream") {
		conf += "\njetstream { store_dir: \"" + dir + "\" }"
	}
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:-1\n"+conf), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return s
}

// serverWith is runServer, for the options of a client.
func serverWith(t *testing.T, conf string) Options {
	t.Helper()
	_, port, _ := net.SplitHostPort(runServer(t, conf).Addr().String())
	return Options{URL: serversAt("localhost:" + port)}.with("replicas", "1")
}

// serves checks that all a daemon and its commands do works.
func serves(t *testing.T, q *client) {
	t.Helper()
	awaitReady(t, q)
	c := consumeTest(t, q, "a.tube")
	if _, err := q.Put(ctxOf(t), "a.tube", []byte("later"), queue.PutOptions{Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, q, "a.tube", "now")
	j := mustReceive(t, c, 1)[0]
	if err := j.Bury(ctxOf(t), []byte("buried")); err != nil {
		t.Fatal(err)
	}
	list, err := queuetest.Buried(ctxOf(t), q, "a.tube", 10)
	if err != nil || len(list) != 1 || string(list[0].Body) != "buried" {
		t.Fatalf("%v, %v", list, err)
	}
	if st, err := q.TubeStats(ctxOf(t), "a.tube"); err != nil || st.Buried != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := q.Kick(ctxOf(t), "a.tube", list[0].ID); err != nil {
		t.Fatal(err)
	}
	jobs := mustReceive(t, c, 2) // the delayed one, too
	if err := jobs[0].Retry(ctxOf(t), 0); err != nil {
		t.Fatal(err)
	}
	mustDone(t, append(mustReceive(t, c, 1), jobs[1])...)
	id := mustPut(t, q, "a.tube", "gone")
	if err := mustReceive(t, c, 1)[0].Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Delete(ctxOf(t), "a.tube", id); err != nil {
		t.Fatal(err)
	}
}

// A server that is reached over TLS alone, from the first byte, by those whose
// certificate it knows.
func TestTLSFirstAndClientCertificate(t *testing.T) {
	t.Parallel()
	cert, certFile := ownCert(t)
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	o := serverWith(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, handshake_first: true }", certFile, keyFile, certFile))
	o = o.with("ca", certFile)
	for name, bad := range map[string]Options{
		"give ?tls_first=true": o.with("cert", certFile, "key", keyFile),
		"certificate":          o.with("tls_first", "true"),
	} {
		says(t, openTest(t, bad), name)
	}
	serves(t, openTest(t, o.with("tls_first", "true", "cert", certFile, "key", keyFile)))
}

func TestNkey(t *testing.T) {
	t.Parallel()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.nk")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	o := serverWith(t, "authorization { users: [ {nkey: "+public+"} ] }")
	log, lines := newLog()
	o.Log = log
	says(t, openTest(t, o), "the server does not take the queue's user, password or token")
	serves(t, openTest(t, o.with("nkey", file)))
	if strings.Contains(lines.String(), string(seed)) {
		t.Error("the log has the key")
	}
}

// permissions are those of the table in docs/queues.md, as a server's configuration has
// them.
func permissions(t *testing.T, api, inbox string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n### Permissions\n")
	table, _, _ = strings.Cut(table, "\n## ")
	lists := map[string][]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (publish|subscribe) \| (.*) \| .* \|$`).FindAllStringSubmatch(table, -1) {
		for _, subject := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			s := strings.Replace(strings.Replace(subject[1], "$JS.API.", api, 1), "_INBOX.", inbox, 1)
			lists[row[1]] = append(lists[row[1]], fmt.Sprintf("%q", s))
		}
	}
	if len(lists["publish"]) < 8 || len(lists["subscribe"]) != 3 {
		t.Fatalf("docs/queues.md: %v", lists)
	}
	return fmt.Sprintf("permissions: { publish: [%s], subscribe: [%s] }", strings.Join(lists["publish"], ", "), strings.Join(lists["subscribe"], ", "))
}

// The permissions that are documented are enough, and with a domain, that of the hub of
// a leaf node, and a prefix for answers as well.
func TestPermissions(t *testing.T) {
	t.Parallel()
	hub := runServer(t, fmt.Sprintf("jetstream { store_dir: %q, domain: hub }\nleafnodes { listen: 127.0.0.1:-1 }", t.TempDir()))
	about, err := hub.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		conf, api, inbox string
		options          []string
	}{
		"plain":        {"", "$JS.API.", "_INBOX.", nil},
		"domain":       {fmt.Sprintf("domain: leaf }\nleafnodes { remotes: [ {url: \"nats-leaf://127.0.0.1:%d\"} ]", about.LeafNode.Port), "$JS.hub.API.", "_INBOX.", []string{"domain", "hub"}},
		"inbox prefix": {"", "$JS.API.", "_IN.propeller.", []string{"inbox_prefix", "_IN.propeller"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := serverWith(t, fmt.Sprintf("jetstream { store_dir: %q, %s }\nauthorization { users: [ {user: me, password: pw, %s} ] }",
				t.TempDir(), c.conf, permissions(t, c.api, c.inbox)))
			log, lines := newLog()
			o.User, o.Password, o.Log, o.lookEvery = "me", "pw", log, 50*time.Millisecond
			o = o.with(c.options...)
			defer func() {
				if t.Failed() {
					t.Logf("log:\n%s", lines)
				}
			}()
			serves(t, openTest(t, o))
			if text := lines.String(); strings.Contains(strings.ToLower(text), "permission") {
				t.Errorf("a permission is missing:\n%s", text)
			}
		})
	}
}

// What a server does not let us do is said in a sentence.
func TestDenied(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ conf, want string }{
		"no rights": {`authorization { users: [ {user: me, password: pw, permissions: {publish: "x", subscribe: "_INBOX.>"}} ] }`,
			`the queue's user may not publish to "$JS.API.STREAM.INFO.PROPELLER_JOBS": give it the permissions that docs/queues.md lists`},
		"no answers":   {`authorization { users: [ {user: me, password: pw, permissions: {publish: ">", subscribe: "x"}} ] }`, `the queue's user may not subscribe to "_INBOX.`},
		"no JetStream": {"#jetstream", "JetStream is not enabled for the queue's account, or its servers have no leader"},
		"small":        {"max_payload: 8192", "its max_payload is 8192 bytes: raise it to 32768 or more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := serverWith(t, c.conf)
			log, lines := newLog()
			o.User, o.Password, o.Log = "me", "pw", log
			says(t, openTest(t, o), c.want)
			eventually(t, "the log says it", func() bool { return strings.Contains(strings.ReplaceAll(lines.String(), `\"`, `"`), c.want) })
		})
	}
}

// A user that may hear answers after all is served without a restart of the daemon, and
// until then there is one line.
func TestDeniedHeals(t *testing.T) {
	t.Parallel()
	const may = "subscribe: \"x\""
	file := filepath.Join(t.TempDir(), "users.conf")
	write := func(may string) {
		t.Helper()
		if err := writeFile(file, "authorization { users: [ {user: me, password: pw, permissions: {"+may+"}} ] }"); err != nil {
			t.Fatal(err)
		}
	}
	write(may)
	s := runServer(t, "include ../001/users.conf") // from the folder of the server's own file
	_, port, _ := net.SplitHostPort(s.Addr().String())
	log, lines := newLog()
	o := Options{URL: serversAt("localhost:" + port), Log: log}.with("replicas", "1")
	o.User, o.Password = "me", "pw"
	q := openTest(t, o)
	says(t, q, "may not subscribe")
	time.Sleep(deafTime + 3*time.Second) // it connects again meanwhile, to no avail
	if n := strings.Count(lines.String(), "queue unavailable"); n != 1 {
		t.Errorf("%d lines:\n%s", n, lines)
	}
	write("subscribe: \">\"")
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	serves(t, q)
}

// One permission that is missing concerns who needs it, at once.
func TestDeniedLater(t *testing.T) {
	t.Parallel()
	o := serverWith(t, `authorization { users: [ {user: me, password: pw, permissions: {publish: {deny: ["propeller.job.closed", "$JS.API.CONSUMER.MSG.NEXT.PROPELLER_JOBS.mute"]}}} ] }`)
	o.User, o.Password = "me", "pw"
	q := openReady(t, o)
	began := time.Now()
	_, err := q.Put(ctxOf(t), "closed", []byte("x"), queue.PutOptions{})
	if !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrUncertain) || !strings.Contains(err.Error(), `may not publish to "propeller.job.closed"`) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > requestTimeout/2 {
		t.Errorf("took %v", took)
	}
	c := consumeTest(t, q, "mute")
	go func() { _, _ = c.Receive(ctxOf(t), 1) }() // ends with c
	eventually(t, "the consumer says why", func() bool {
		err := c.Err()
		return err != nil && strings.Contains(err.Error(), "may not publish to")
	})
	mustPut(t, q, "open", "x")
	mustDone(t, mustReceive(t, consumeTest(t, q, "open"), 1)...)
}
