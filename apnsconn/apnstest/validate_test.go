package apnstest_test

import (
	"strconv"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
)

// TestValidation sends one request per rule and looks for Apple's status and
// reason.
func TestValidation(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	const uuid = "123e4567-e89b-12d3-a456-4266554400a0"
	body := func(n int) string { return strings.Repeat("x", n) }
	small := body(20)
	tests := []struct {
		name   string
		with   []string
		body   string
		status int
		reason string
	}{
		{"plain", nil, small, 200, ""},
		{"all fields", []string{"apns-id", uuid, "apns-priority", "5", "apns-expiration", "0", "apns-collapse-id", body(64)}, small, 200, ""},
		{"no push type", []string{"apns-push-type", ""}, small, 200, ""},
		{"topic of the certificate", []string{"apns-topic", ""}, small, 200, ""},
		{"long token", []string{":path", "/3/device/" + strings.Repeat("ab", 100)}, small, 200, ""},
		{"upper-case token", []string{":path", "/3/device/ABCDEF0123456789"}, small, 200, ""},
		{"voip, 5120 bytes", []string{"apns-topic", topic + ".voip", "apns-push-type", "voip"}, body(5120), 200, ""},
		{"4096 bytes", nil, body(4096), 200, ""},
		{"background", []string{"apns-push-type", "background", "apns-priority", "5"}, small, 200, ""},

		{"GET", []string{":method", "GET"}, small, 405, "MethodNotAllowed"},
		{"path", []string{":path", "/4/device/" + token}, small, 404, "BadPath"},
		{"path below the token", []string{":path", "/3/device/" + token + "/x"}, small, 404, "BadPath"},
		{"no token", []string{":path", "/3/device/"}, small, 400, "MissingDeviceToken"},
		{"token not hex", []string{":path", "/3/device/" + strings.Repeat("xy", 16)}, small, 400, "BadDeviceToken"},
		{"token odd", []string{":path", "/3/device/" + token + "a"}, small, 400, "BadDeviceToken"},
		{"id", []string{"apns-id", "123"}, small, 400, "BadMessageId"},
		{"id without dashes", []string{"apns-id", strings.ReplaceAll(uuid, "-", "a")}, small, 400, "BadMessageId"},
		{"expiration", []string{"apns-expiration", "-1"}, small, 400, "BadExpirationDate"},
		{"expiration text", []string{"apns-expiration", "soon"}, small, 400, "BadExpirationDate"},
		{"priority", []string{"apns-priority", "7"}, small, 400, "BadPriority"},
		{"background at 10", []string{"apns-push-type", "background", "apns-priority", "10"}, small, 400, "BadPriority"},
		{"background without priority", []string{"apns-push-type", "background"}, small, 400, "BadPriority"},
		{"collapse id", []string{"apns-collapse-id", body(65)}, small, 400, "BadCollapseId"},
		{"topic text", []string{"apns-topic", "com example"}, small, 400, "BadTopic"},
		{"topic of another app", []string{"apns-topic", "com.example.other"}, small, 400, "TopicDisallowed"},
		{"voip without suffix", []string{"apns-push-type", "voip"}, small, 400, "TopicDisallowed"},
		{"push type", []string{"apns-push-type", "shout"}, small, 400, "InvalidPushType"},
		{"empty", nil, "", 400, "PayloadEmpty"},
		{"4097 bytes", nil, body(4097), 413, "PayloadTooLarge"},
		{"voip, 5121 bytes", []string{"apns-topic", topic + ".voip", "apns-push-type", "voip"}, body(5121), 413, "PayloadTooLarge"},
		{"body of 40 KiB", nil, body(40 << 10), 413, "PayloadTooLarge"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.t = t
			stream := uint32(2*i + 1)
			c.headers(stream, tt.body == "", pushFields(tt.with...)...)
			for b := tt.body; b != ""; {
				n := min(len(b), 16384)
				c.fr.WriteData(stream, n == len(b), []byte(b[:n]))
				b = b[n:]
			}
			want := ""
			if tt.reason != "" {
				want = `{"reason":"` + tt.reason + `"}`
			}
			if got := c.response(stream); got.status != strconv.Itoa(tt.status) || got.body != want {
				t.Errorf("answer %s %s, want %d %s", got.status, got.body, tt.status, want)
			}
			reqs := srv.Requests()
			if last := reqs[len(reqs)-1]; last.BodySize != len(tt.body) || len(last.Body) > 16<<10 {
				t.Errorf("recorded %d bytes, kept %d, want %d and at most 16 KiB", last.BodySize, len(last.Body), len(tt.body))
			}
		})
	}
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

func TestDuplicateHeaders(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	c.headers(1, false, append(pushFields(), "apns-priority", "5", "apns-priority", "5")...)
	c.fr.WriteData(1, true, []byte("{}"))
	if got := c.response(1); got.body != `{"reason":"DuplicateHeaders"}` {
		t.Errorf("answer %s %s", got.status, got.body)
	}
}

// TestPushTypes: every type goes with its topic suffix, and not without it.
func TestPushTypes(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{AllowAnonymous: true, ClientCert: apnstest.ClientCertNone})
	c, _ := dial(t, srv)
	suffixes := map[string]string{
		"alert": "", "background": "", "mdm": "", "voip": ".voip", "complication": ".complication",
		"fileprovider": ".pushkit.fileprovider", "location": ".location-query", "pushtotalk": ".voip-ptt",
		"liveactivity": ".push-type.liveactivity", "widgets": ".push-type.widgets", "controls": ".push-type.controls",
	}
	stream := uint32(1)
	for pushType, suffix := range suffixes {
		c.push(stream, "apns-push-type", pushType, "apns-topic", topic+suffix, "apns-priority", "5")
		if got := c.response(stream); got.status != "200" {
			t.Errorf("%s to %s: %s %s", pushType, topic+suffix, got.status, got.body)
		}
		stream += 2
		c.push(stream, "apns-push-type", pushType, "apns-priority", "5")
		if got := c.response(stream); (got.status == "200") != (suffix == "") {
			t.Errorf("%s to %s: %s %s", pushType, topic, got.status, got.body)
		}
		stream += 2
	}
	c.push(stream, "apns-topic", "")
	if got := c.response(stream); got.body != `{"reason":"MissingTopic"}` {
		t.Errorf("no topic, no certificate: %s %s", got.status, got.body)
	}
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	valid := []string{
		":path", "/4/broadcasts/apps/" + topic, "apns-topic", "", "apns-push-type", "liveactivity",
		"apns-channel-id", "dHN0LXNyY2gtY2hubA==", "apns-expiration", "0",
		"apns-request-id", "123e4567-e89b-12d3-a456-4266554400a0",
	}
	tests := []struct {
		name, reason string
		with         []string
	}{
		{"valid", "", nil},
		{"no channel", "MissingChannelId", []string{"apns-channel-id", ""}},
		{"bad channel", "BadChannelId", []string{"apns-channel-id", "%%"}},
		{"no push type", "MissingPushType", []string{"apns-push-type", ""}},
		{"other push type", "InvalidPushType", []string{"apns-push-type", "alert"}},
		{"no expiration", "BadExpirationDate", []string{"apns-expiration", ""}},
		{"suffix in the path", "TopicDisallowed", []string{":path", "/4/broadcasts/apps/" + topic + ".push-type.liveactivity"}},
		{"another app", "TopicDisallowed", []string{":path", "/4/broadcasts/apps/com.example.other"}},
		{"request id", "BadMessageId", []string{"apns-request-id", "1"}},
		{"no app", "BadPath", []string{":path", "/4/broadcasts/apps/"}},
		{"GET", "MethodNotAllowed", []string{":method", "GET"}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.t = t
			stream := uint32(2*i + 1)
			c.push(stream, append(append([]string(nil), valid...), tt.with...)...)
			got := c.response(stream)
			want := ""
			if tt.reason != "" {
				want = `{"reason":"` + tt.reason + `"}`
			}
			if got.body != want || (got.status == "200") != (want == "") {
				t.Errorf("answer %s %s, want %q", got.status, got.body, want)
			}
			if tt.reason == "" && got.header.Get("apns-request-id") == "" {
				t.Error("apns-request-id is not echoed")
			}
		})
	}
}

func TestNoValidation(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{NoValidation: true})
	c, _ := dial(t, srv)
	c.headers(1, true, ":method", "GET", ":scheme", "https", ":path", "/anything")
	if got := c.response(1); got.status != "200" {
		t.Errorf("answer %s %s, want 200", got.status, got.body)
	}
}
