package httpapi

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// slowClients are the ways to be slow; each has begun to send or read something
// and goes on with neither.
var slowClients = map[string]string{ // never written to
	"a byte of the head":     "P",
	"a head without its end": "GET /v1/apps HTTP/1.1\r\nHost: x\r\nX-More: ",
	"a byte of a body": "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sender-0123\r\n" +
		"Content-Length: 100\r\n\r\n{",
	"a part of a large body": "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sender-0123\r\n" +
		"Content-Length: 10000000\r\n\r\n" + strings.Repeat("[", smallBody+1),
	"a part of a form": "POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
		"Content-Length: 100\r\n\r\ntoken=",
	"a part of a stream": "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sender-0123\r\n" +
		"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
	"live data of the page, unread": "GET /events HTTP/1.1\r\nHost: x\r\nCookie: propeller_session=SESSION\r\n\r\n",
	"many answers, unread":          strings.Repeat("GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n", 100),
}

// 1,000 clients that are slow in every way hold up no other: all its requests are
// answered as ever.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	tree := newTouchedTree()
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	session := newGuest(t, api.Network()).signIn("reader-0123").cookie.Value
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, api.Network())
	for range 1000 / len(slowClients) {
		for way, begin := range slowClients {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, strings.Replace(begin, "SESSION", session, 1)); err != nil {
				t.Fatalf("%s: %v", way, err)
			}
		}
	}
	waitFor(t, func() bool { return api.bodies.takenBy("sender") > api.bodies.each-bodyCost*largeBody }) // the slow ones have all that their key gets
	client := newClient(t)
	for i := range 100 {
		for _, request := range []struct {
			method, path, body string
			want               int
		}{
			{"GET", "/healthz", "", 200},
			{"GET", "/v1/apps", "", 200},
			{"GET", "/v1/apps/" + topic + "/buried", "", 200},
			{"POST", "/v1/notifications", push, 202},
			{"POST", "/v1/notifications", "[" + push + "," + push + "]", 202},
			{"POST", "/post", form + "&auth_token=sender-0123", 200},
		} {
			r, err := http.NewRequestWithContext(t.Context(), request.method, "http://"+addr+request.path, strings.NewReader(request.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer sender-0123")
			if request.path == "/post" {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatalf("%d: %s: %v", i, request.path, err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != request.want {
				t.Fatalf("%d: %s: %s %s, %v", i, request.path, resp.Status, text, err)
			}
		}
	}
	if put := len(tree.take()); put != 400 {
		t.Errorf("%d notifications are put, of 400", put)
	}
}
