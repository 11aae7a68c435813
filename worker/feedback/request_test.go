package feedback

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// endless answers one request with first, and then more for as long as it is
// taken. It tells how much that was.
func endless(t *testing.T, first, more string) (url string, taken <-chan int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ch := make(chan int, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_, _ = nc.Read(make([]byte, 1<<10))
		total, err := io.WriteString(nc, first)
		for n := 0; err == nil && more != "" && total < 1<<30; total += n {
			n, err = io.WriteString(nc, more)
		}
		ch <- total
	}()
	return "http://" + l.Addr().String(), ch
}

// An endpoint's answer costs little, whatever it claims and however long it is.
func TestLyingEndpoint(t *testing.T) {
	t.Parallel()
	line := "X: " + strings.Repeat("x", 1000) + "\r\n"
	for name, tt := range map[string]struct {
		first, more string
		ok          bool
	}{
		"endless head":        {"HTTP/1.1 200 OK\r\n", strings.Repeat(line, 60), false},
		"endless line":        {"HTTP/1.1 200 OK\r\nX: ", strings.Repeat("x", 60_000), false},
		"endless status":      {"HTTP/1.1 200 ", strings.Repeat("x", 60_000), false},
		"endless interim":     {"", strings.Repeat("HTTP/1.1 103 x\r\n"+line+"\r\n", 60), false},
		"endless body":        {"HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 60_000), true},
		"endless chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", strings.Repeat("x", 60_000), true},
		"endless chunk size":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("0", 60_000), true},
		"endless trailer":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", strings.Repeat(line, 60), true},
		"length of 9 EB":      {"HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n", strings.Repeat("x", 60_000), true},
		"length below zero":   {"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n", "", false},
		"length beyond words": {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "", false},
		"status below zero":   {"HTTP/1.1 -20 OK\r\n\r\n", "", false},
		"garbage":             {"\x00\xff\x1b[2J\r\n\r\n", "", false},
		"nothing":             {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, taken := endless(t, tt.first, tt.more)
			w := NewWebhook(WebhookConfig{URL: url, Secrets: [][]byte{[]byte(testSecret)}})
			began := time.Now()
			a := w.post(t.Context(), []byte(`{"records":[]}`))
			w.client.CloseIdleConnections()
			if a.ok != tt.ok || a.ok == (a.reason != "") || len(a.reason) > maxReason+len("…") {
				t.Errorf("%+v", a)
			}
			if took := time.Since(began); took > 2*RequestTime {
				t.Errorf("took %v", took)
			}
			if n := <-taken; n > 64<<20 { // what fits into the sockets' buffers, with room to spare
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

// testHook is Standard Webhooks' own library, with the tests' secret.
func testHook(t *testing.T) *standardwebhooks.Webhook {
	t.Helper()
	hook, err := standardwebhooks.NewWebhookRaw([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

// exampleTime is the timestamp that the examples have.
var exampleTime = time.Unix(1750000000, 0)

// The signatures are as openssl makes them, one for each secret:
//
//	printf '%s' 'abc.1750000000.{"records":[]}' | openssl dgst -sha256 -hmac SECRET -binary | base64
func TestSign(t *testing.T) {
	t.Parallel()
	const want = "v1,x+7tvDZyj/wiOiNx5XiHrhnExpkOABtVdcknfdI4Zyc= v1,9OrbkvguBoQb7U9A4ud4WP0RElvb6gnL09s9HyW67/0="
	secrets := [][]byte{[]byte(testSecret), []byte("the one before it")}
	if got := sign(secrets, "abc", "1750000000", []byte(`{"records":[]}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A request is good for whoever knows one of its secrets, and for nobody else.
func TestSignWithSeveralSecrets(t *testing.T) {
	t.Parallel()
	body := []byte(`{"records":[]}`)
	request := func(secrets ...string) func(secret string) error {
		w := NewWebhook(WebhookConfig{URL: "http://127.0.0.1/"})
		for _, s := range secrets {
			w.cfg.Secrets = append(w.cfg.Secrets, []byte(s))
		}
		r, err := w.request(t.Context(), body, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return func(secret string) error {
			hook, err := standardwebhooks.NewWebhookRaw([]byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			return hook.Verify(body, r.Header)
		}
	}
	rotating := request("the new one", testSecret)
	for secret, good := range map[string]bool{"the new one": true, testSecret: true, "another": false} {
		if err := rotating(secret); (err == nil) != good {
			t.Errorf("while it is replaced, %q: %v", secret, err)
		}
	}
	if err := request("the new one")(testSecret); err == nil {
		t.Error("the old secret still signs")
	}
}
