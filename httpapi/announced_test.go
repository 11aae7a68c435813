package httpapi

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// Who announces a body that is too large is answered before any of it has come.
func TestAnnouncedTooLarge(t *testing.T) {
	t.Parallel()
	api := New(new(putTree), Options{})
	api.Use(Settings{Keys: testKeys})
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, api.Network())
	const form = "Content-Type: application/x-www-form-urlencoded\r\n"
	for _, c := range []struct {
		path, more string
		limit      int
	}{
		{"/v1/notifications", "", largeBody},
		{"/v1/lint", "", largeBody},
		{"/v1/apps/" + topic + "/jobs", "", maxBody},
		{"/v1/apps/" + topic + "/buried/kick", "", maxBody},
		{"/post", form, maxForm},
	} {
		for _, key := range []string{"admin-0123", ""} {
			if key == "" && c.path != "/post" {
				continue
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if key != "" {
				c.more += "Authorization: Bearer " + key + "\r\n"
			}
			began := time.Now()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n", c.path, c.more, c.limit+1)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%s: %v", c.path, err)
				continue
			}
			resp.Body.Close()
			// A body that does not come is given up after 5 s.
			if took := time.Since(began); resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close || took > 4*time.Second {
				t.Errorf("%s: %d, to be closed: %v, after %v", c.path, resp.StatusCode, resp.Close, took)
			}
		}
	}
}
