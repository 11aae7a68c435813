package jetstream

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats.go"

	"golang.org/x/time/rate"

	"propeller/queue"
)

// middleman stands between a client and an honest server, and says things in the
// server's name.
type middleman struct {
	addr string
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]map[string]string // of clients: the numbers of their subscriptions, by subject
	made  int
}

func newMiddleman(t *testing.T, server string) *middleman {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middleman{addr: l.Addr().String(), conns: make(map[net.Conn]map[string]string)}
	m.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { m.serve(nc, server) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		m.mu.Lock()
		for nc := range m.conns {
			nc.Close()
		}
		m.mu.Unlock()
		m.wg.Wait()
	})
	return m
}

var subLine = regexp.MustCompile(`SUB (\S+) +(\d+)\r\n`)

func (m *middleman) serve(nc net.Conn, server string) {
	defer nc.Close()
	far, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer far.Close()
	subs := make(map[string]string)
	m.mu.Lock()
	m.conns[nc] = subs
	m.made++
	m.mu.Unlock()
	m.wg.Go(func() {
		defer far.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := nc.Read(b)
			m.mu.Lock()
			for _, s := range subLine.FindAllSubmatch(b[:n], -1) {
				subs[string(s[1])] = string(s[2])
			}
			m.mu.Unlock()
			if err != nil {
				return
			}
			if _, err := far.Write(b[:n]); err != nil {
				return
			}
		}
	})
	b := make([]byte, 64<<10)
	for {
		n, err := far.Read(b)
		m.mu.Lock()
		_, werr := nc.Write(b[:n])
		m.mu.Unlock()
		if err != nil || werr != nil {
			break
		}
	}
	m.mu.Lock()
	delete(m.conns, nc)
	m.mu.Unlock()
}

// say says something to all who are connected; SID stands for each of their
// subscriptions in turn.
func (m *middleman) say(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for nc, subs := range m.conns {
		if !strings.Contains(text, "SID") {
			_, _ = io.WriteString(nc, text)
			continue
		}
		for _, sid := range subs {
			_, _ = io.WriteString(nc, strings.ReplaceAll(text, "SID", sid))
		}
	}
}

func (m *middleman) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made
}

// liesTold are said in the middle of a good connection, and end it.
var liesTold = []struct{ text, why string }{
	{"MSG x SID 9000000000000000000\r\n", "a message of"},
	{"MSG x SID 99999999999\r\n", "a message of"},
	{"MSG x SID 99999999\r\n", "a message of"},
	{"MSG x SID 18446744073709551617\r\nx", "a message of"},
	{"MSG x SID -2\r\n", "a message of"},
	{"MSG x SID reply 9000000000000000000\r\n", "a message of"},
	{"HMSG x SID 12 10\r\nNATS/1.0\r\n\r\n", "headers of"},
	{"HMSG x SID -1 10\r\n", "headers of"},
	{"HMSG x SID 9000000000000000000 9000000000000000000\r\n", "a message of"},
	{"MSG x SID\r\n", "broke the protocol"},
	{"MSG x y z a 5\r\n", "broke the protocol"},
	{"MSG _INBOX.x SID 9000000\r\n", "was not requested"},
	{"MSG  x SID 5\r\n", "broke the protocol"},
	{"MSG x SID 5\n", "broke the protocol"},
	{"MSG x\rSID 5\r\n", "broke the protocol"},
	{"MSG x -1 5\r\n", "broke the protocol"},
	{"MSG x SID 2\r\nhi\nMSG x SID 9000000000000000000\r\n", "longer than it said"},
	{"MSG x SID 2\r\nhixxx\r\n", "longer than it said"},
	{"MSG " + strings.Repeat("x", 1<<20), "a line of more than"},
	{"INFO {" + strings.Repeat("x", 1<<20), "a line of more than"},
	{"INFO  \nMSG x SID 9000000000000000000\r\n", "broke the protocol"},
	{strings.Repeat("\x00\xff\x1b[2J", 1000) + "\n", "broke the protocol"},
	{"PING \r\n", "broke the protocol"},
	{"-ERR 'you are not wanted'\r\n", "you are not wanted"},
	{"-ERR 'Stale Connection'\r\n", "Stale Connection"},
	{"-ERR 'no authorization violation'\r\n", "no authorization violation"},
	{strings.Repeat("+OK\r\n", 3*lineBurst), "floods"},
	{strings.Repeat("-ERR 'Permissions Violation for Subscription to \"x\"'\r\n", 3*lineBurst), "floods"},
	{strings.Repeat(`INFO {"max_payload":1048576}`+"\r\n", 3*lineBurst), "floods"},
}

// What a server says wrongly costs its connection, with a reason, and nothing else.
func TestLyingServer(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	m := newMiddleman(t, ns.all[0].addr)
	o := ns.options(t)
	o.Servers = []string{m.addr}
	log, lines := newLog()
	o.Log = log
	q := openReady(t, o)
	q.link.lines.SetLimit(rate.Inf) // each lie is told
	c := consumeTest(t, q, "tube")
	works := func(after string) {
		t.Helper()
		eventually(t, "a put works after "+after, func() bool {
			_, err := q.Put(ctxOf(t), "tube", []byte(after), queue.PutOptions{})
			return err == nil
		})
		if j := mustReceive(t, c, 1)[0]; string(j.Body()) != after {
			t.Errorf("job %q after %s", j.Body(), after)
		} else {
			mustDone(t, j)
		}
	}
	works("nothing")
	for i, lie := range liesTold {
		before, heard := m.count(), len(lines.String())
		m.say(lie.text)
		eventually(t, fmt.Sprintf("another connection after %.60q", lie.text), func() bool { return m.count() > before })
		eventually(t, fmt.Sprintf("it is said why after %.60q", lie.text), func() bool { return strings.Contains(lines.String()[heard:], lie.why) })
		works(fmt.Sprint("lie ", i))
	}
	if s := lines.String(); strings.Contains(s, "panic") {
		t.Errorf("nats.go or we saw it:\n%s", s)
	}
}

// What is well-formed and makes no sense is harmless.
func TestUnaskedMessages(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	m := newMiddleman(t, ns.all[0].addr)
	o := ns.options(t)
	o.Servers = []string{m.addr}
	log, lines := newLog()
	o.Log = log
	q := openReady(t, o)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "first")
	mustDone(t, mustReceive(t, c, 1)...)
	before := m.count()
	for _, text := range []string{
		"MSG x SID 2\r\nhi\r\n",
		"MSG x SID y 2\r\nhi\r\n",
		"MSG x SID  2\r\nhi\r\n",
		"HMSG x SID  10 12\r\nNATS/1.0\r\n{}\r\n",
		"MSG " + q.calls.inbox + " SID 0\r\n\r\n",
		"MSG " + q.calls.inbox + "zzzzzzzzzzzzzzzzzzzz SID 2\r\n{}\r\n",
		"MSG x SID $JS.ACK.a.b.-5.7.7.7.7 2\r\nhi\r\n",
		"HMSG x SID 10 12\r\nNATS/1.0\r\n{}\r\n",
		"HMSG x SID 12 12\r\nNATS/1.0\r\n\r\n\r\n",
		"MSG x 999 2\r\nhi\r\n",
		`INFO {"connect_urls":[1,"::",""],"max_payload":-1}` + "\r\n",
		`INFO {` + "\r\n",
		"PING\r\n", "PONG\r\n", "+OK\r\n",
	} {
		m.say(text)
	}
	// Unrequested jobs do not fill the memory: they are given back.
	for i := range 20 * maxStray {
		m.say(fmt.Sprintf("MSG x SID $JS.ACK.s.c.1.%d.1.1700000000000000000.0 2\r\nhi\r\n", 1000+i))
	}
	most := 0
	for range 200 {
		c.t.mu.Lock()
		most = max(most, len(c.Waiting))
		c.t.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	if most == 0 || most > maxStray+maxBatch {
		t.Errorf("%d jobs wait", most)
	}
	mustPut(t, q, "tube2", "second")
	if j := mustReceive(t, consumeTest(t, q, "tube2"), 1)[0]; string(j.Body()) != "second" {
		t.Errorf("job %q", j.Body())
	}
	if s := lines.String(); m.count() != before || strings.Contains(s, "panic") {
		t.Errorf("%d connections, want %d\n%s", m.count(), before, s)
	}
}

// A panic in a callback ends the connection, which is made anew.
func TestPanicLosesTheConnection(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	log, lines := newLog()
	o.Log = log
	q := openReady(t, o)
	cn, _, _, _ := q.link.ready()
	reconnects := cn.nc.Stats().Reconnects
	q.guarded(func(*nats.Msg) { panic("a size below zero") })(nil)
	eventually(t, "another connection", func() bool { return cn.nc.Stats().Reconnects > reconnects })
	awaitReady(t, q)
	mustPut(t, q, "tube", "after")
	if s := lines.String(); !strings.Contains(s, "a size below zero") || !strings.Contains(s, "lies_test.go") {
		t.Errorf("no reason or no stack in the log:\n%s", s)
	}
}

const goodInfo = `INFO {"server_id":"x","version":"2.12.3","headers":true,"max_payload":1048576,"jetstream":true}` + "\r\n"

// liar is a server that begins with info, and answers every request with answer.
type liar struct{ info, pong, answer string }

func (s liar) serve(nc net.Conn) {
	defer nc.Close()
	if _, err := io.WriteString(nc, s.info); err != nil {
		return
	}
	in := bufio.NewReader(nc)
	subs := make(map[string]string)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "PING":
			_, _ = io.WriteString(nc, s.pong)
		case f[0] == "SUB":
			subs[strings.TrimSuffix(f[1], "*")] = f[2]
		case strings.HasSuffix(f[0], "PUB") && len(f) > 3:
			for prefix, sid := range subs {
				if strings.HasPrefix(f[2], prefix) {
					fmt.Fprintf(nc, "MSG %s %s %d\r\n%s\r\n", f[2], sid, len(s.answer), s.answer)
				}
			}
		}
	}
}

// Lies of the first moments, and answers that are not what was asked for: the queue
// is away, with a reason, until an honest server has the port.
func TestLyingFromTheStart(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	addr := ns.all[0].addr
	log, lines := newLog()
	o := ns.options(t)
	o.Log, o.timeout = log, 500*time.Millisecond
	q := openReady(t, o)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "before")
	mustDone(t, mustReceive(t, c, 1)...)
	ns.down()
	for _, s := range []liar{
		{info: "MSG x 1 9000000000000000000\r\n"},
		{info: "\r\n"},
		{info: "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{info: "INFO {" + strings.Repeat("x", 1<<20)},
		{info: "INFO {]\r\n"},
		{info: "INFO " + strings.Repeat("[", 50_000) + "\r\n"},
		{info: `INFO {"tls_required":true}` + "\r\nMSG x 1 9000000000000000000\r\n"},
		{info: `INFO {"tls_required":true}` + "\r\n"},
		{info: goodInfo + "MSG x 1 9000000000000000000\r\n"},
		{info: goodInfo, pong: "MSG x 1 9000000000000000000\r\n"},
		{info: goodInfo, pong: strings.Repeat("x", 1<<20)},
		{info: goodInfo, pong: "-ERR 'no'\r\n"},
		{info: strings.Replace(goodInfo, "2.12.3", "99999999999999999999.1.", 1), pong: "PONG\r\n"},
		{info: goodInfo, pong: "PONG\r\n", answer: ""},
		{info: goodInfo, pong: "PONG\r\n", answer: "{}"},
		{info: goodInfo, pong: "PONG\r\n", answer: "null"},
		{info: goodInfo, pong: "PONG\r\n", answer: "[]"},
		{info: goodInfo, pong: "PONG\r\n", answer: `{"error":{}}`},
		{info: goodInfo, pong: "PONG\r\n", answer: `{"error":{"code":404,"err_code":10059}}`},
		{info: goodInfo, pong: "PONG\r\n", answer: `{"error":null,"config":null,"state":null,"cluster":null,"type":"io.nats.jetstream.api.v1.stream_info_response"}`},
		{info: goodInfo, pong: "PONG\r\n", answer: `{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{"name":"x","num_replicas":-9},"cluster":{"leader":""},"total":-1}`},
		{info: goodInfo, pong: "PONG\r\n", answer: strings.Repeat("[", 100_000)},
	} {
		heard := len(lines.String())
		stop, count := s.listen(t, addr)
		eventually(t, fmt.Sprintf("it is asked: %.50q %.50q %.50q", s.info, s.pong, s.answer), func() bool { return count() > 0 })
		for range 3 {
			_, _ = q.TubeStats(ctxOf(t), "tube")
			if _, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{}); err == nil {
				t.Errorf("%.50q %.50q %.50q: a put was stored", s.info, s.pong, s.answer)
			}
		}
		stop()
		if strings.Contains(lines.String()[heard:], "panic") {
			t.Errorf("%.50q %.50q %.50q: a panic", s.info, s.pong, s.answer)
		}
	}
	if err := ns.up(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a put works", func() bool {
		_, err := q.Put(ctxOf(t), "tube", []byte("after"), queue.PutOptions{})
		return err == nil
	})
	if j := mustReceive(t, c, 1)[0]; string(j.Body()) != "after" {
		t.Errorf("job %q", j.Body())
	}
}

// listen serves on addr until stop is called.
func (s liar) listen(t *testing.T, addr string) (stop func(), count func() int) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			wg.Go(func() { s.serve(nc) })
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		mu.Lock()
		for _, nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	t.Cleanup(stop)
	return stop, func() int { mu.Lock(); defer mu.Unlock(); return len(conns) }
}

// The check sits above TLS: it sees what an encrypted server says.
func TestLyingUnderTLS(t *testing.T) {
	t.Parallel()
	cert, ca := ownCert(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				_, _ = io.WriteString(nc, strings.Replace(goodInfo, "{", `{"tls_required":true,`, 1))
				tc := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}})
				liar{pong: "PONG\r\nMSG x 1 9000000000000000000\r\n"}.serve(tc)
			}()
		}
	}()
	log, lines := newLog()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	q := openTest(t, Options{URL: serversAt("localhost:" + port), Log: log}.with("ca", ca))
	_, _ = q.TubeStats(ctxOf(t), "tube")
	eventually(t, "it is said why", func() bool { return strings.Contains(lines.String(), "a message of") })
}

// An encrypted server is reached as before, and only if its certificate is right.
func TestTLS(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	cert, ca := ownCert(t)
	ns.down()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ns.all[0].file)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "tls { cert_file: %q, key_file: %q }\n", ca, keyFile)
	if err := os.WriteFile(ns.all[0].file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ns.up(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ns.all[0].addr)

	o.Scheme, o.Servers = "tls", []string{"localhost:" + port}
	o = o.with("ca", ca)
	q := openReady(t, o)
	mustPut(t, q, "tube", "x")
	mustDone(t, mustReceive(t, consumeTest(t, q, "tube"), 1)...)

	for want, change := range map[string]func(*Options){
		"certificate":     func(o *Options) { *o = o.with("ca", "") },
		"cannot validate": func(o *Options) { o.Servers = []string{"127.0.0.1:" + port} },
	} {
		bad := o
		change(&bad)
		q := openTest(t, bad)
		if _, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// ownCert is a certificate for localhost, which is also the file of its CA.
func ownCert(t *testing.T) (cert tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// scripted is a connection that reads a text.
type scripted struct {
	net.Conn
	io.Reader
}

func (s scripted) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// What is honest passes as it was, wherever the network cuts it.
func TestWirePasses(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("MSG x 1 9000000000000000000\r\n", 5000)
	text := strings.Repeat("PING\r\n+OK\r\nMSG a.b 1 0\r\n\r\nHMSG a 12 c.d 12 14\r\nNATS/1.0\r\n\r\nhi\r\n-ERR 'Permissions Violation for x'\r\n"+
		`INFO {"a":1} `+"\r\nPONG\r\n", 50) + fmt.Sprintf("MSG a 1 %d\r\n%s\r\nPONG\r\n", len(body), body)
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)), "halves": iotest.HalfReader(strings.NewReader(text)),
	} {
		got, err := io.ReadAll(io.Reader(newWire(scripted{Reader: r}, []byte("INFO {}\r\n"), nats.InboxPrefix, nil)))
		if err != nil || string(got) != "INFO {}\r\n"+text {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(text)+9, err)
		}
	}
}

// A list of subjects is no longer than a server makes it, and has an end.
func TestLyingLists(t *testing.T) {
	t.Parallel()
	var info streamInfo
	many := bytes.Repeat([]byte(`"a":1,`), 3*maxSubjects)
	text := fmt.Appendf(nil, `{"state":{"subjects":{%s"b":1}}}`, many)
	if err := json.Unmarshal(text, &info); err == nil || !strings.Contains(err.Error(), "at a time") {
		t.Errorf("%d subjects: %v", len(info.State.Subjects), err)
	}
	s := liar{info: goodInfo, pong: "PONG\r\n", answer: `{"type":"io.nats.jetstream.api.v1.stream_info_response","total":9000000000000000000,"state":{"subjects":{}}}`}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s.listen(t, addr)
	q := openTest(t, Options{URL: serversAt(addr)})
	eventually(t, "it is connected", func() bool { cn, _, _, _ := q.link.ready(); return cn != nil })
	cn, _, _, _ := q.link.ready()
	n := 0
	if err := q.eachSubject(ctxOf(t), cn, jobsStream, ">", func(string, int) error { n++; return nil }); err != nil || n > 0 {
		t.Errorf("%d subjects, %v", n, err)
	}
}

// Jobs that wait are bounded in bytes, too.
func TestRoomForJobs(t *testing.T) {
	t.Parallel()
	c := &consumer{}
	c.Want = 1000
	body := make([]byte, maxPendingBytes/4)
	for range 4 {
		if !c.roomLocked(body) {
			t.Fatalf("no room with %d", len(c.Waiting))
		}
		c.Waiting = append(c.Waiting, &job{body: body})
	}
	if c.roomLocked(body) || !c.roomLocked([]byte("{}")) {
		t.Error("no bound, or one for small jobs")
	}
}

// BenchmarkWire is what the check costs for each message.
func BenchmarkWire(b *testing.B) {
	one := "MSG _INBOX.abcdefghijklmnopqrstuv.1 3 $JS.ACK.propeller.com_example_app.1.1234567.1234567.1700000000000000000.12 300\r\n" + strings.Repeat("x", 300) + "\r\n"
	text := bytes.Repeat([]byte(one), 70)
	w := newWire(nil, nil, nats.InboxPrefix, nil)
	b.ReportAllocs()
	for b.Loop() {
		for at := 0; at < len(text); at += 32 << 10 {
			if _, err := w.check(text[at:min(len(text), at+32<<10)]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/70, "ns/message")
}
