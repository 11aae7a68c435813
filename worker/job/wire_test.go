package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
)

// wire is a connection to an APNs that takes every topic.
func wire(t *testing.T) (*apnsconn.Conn, *apnstest.Server) {
	t.Helper()
	s := apnstest.NewServer(apnstest.Options{AllowAnonymous: true})
	t.Cleanup(s.Close)
	c, err := apnsconn.Dial(t.Context(), apnsconn.Config{Addr: s.Addr, RootCAs: s.CertPool()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, s
}

// pushJob sends a job's push and returns its outcome and what arrived.
func pushJob(t *testing.T, c *apnsconn.Conn, s *apnstest.Server, topic, job string) (apnsconn.Outcome, apnstest.Request) {
	t.Helper()
	j, err := Parse([]byte(job), topic, "1")
	if err != nil {
		t.Fatalf("%.200s: %v", job, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s.ForgetRequests()
	o := c.Push(ctx, &j.Notification)
	requests := s.Requests()
	if len(requests) != 1 {
		t.Fatalf("%.200s: %+v, %d requests", job, o, len(requests))
	}
	return o, requests[0]
}

// sized is a payload of so many bytes.
func sized(size int) string { return `{"x":"` + strings.Repeat("x", size-8) + `"}` }

// Each push type that Apple documents, from the job to APNs: topic, headers,
// priorities and size, by the pages named at apnsconn's table of them.
func TestPushTypesOnTheWire(t *testing.T) {
	t.Parallel()
	const app, uid = "com.example.app", "com.apple.mgmt.External.3c90b1f6"
	content := map[string]string{
		"alert": `{"aps":{"alert":"x"}}`, "background": `{"aps":{"content-available":1}}`, "voip": `{"call":1}`, "complication": `{"aps":{},"n":1}`,
		"fileprovider": `{"container-identifier":"a","domain":"b"}`, "mdm": `{"mdm":"magic"}`, "location": `{"aps":{}}`,
		"liveactivity": `{"aps":{"timestamp":1,"event":"update","content-state":{}}}`, "pushtotalk": `{"aps":{}}`,
		"widgets": `{"aps":{"content-changed":true}}`, "controls": `{"aps":{"content-changed":true}}`,
		"hologram": `{"aps":{}}`,
	}
	for _, tt := range []struct {
		pushType, app, topic string
		priority             string // apns-priority of a job that names none
		allowed              []int  // priorities
		limit                int    // bytes of payload
		inferred             bool   // from the payload; a topic's suffix always tells
	}{
		{"alert", app, app, "", []int{1, 5, 10}, 4096, true},
		{"background", app, app, "5", []int{5}, 4096, true},
		{"voip", app, app + ".voip", "", []int{1, 5, 10}, 5120, false},
		{"complication", app, app + ".complication", "", []int{1, 5, 10}, 4096, false},
		{"fileprovider", app, app + ".pushkit.fileprovider", "", []int{1, 5, 10}, 4096, true},
		{"mdm", uid, uid, "", []int{1, 5, 10}, 4096, true},
		{"location", app, app + ".location-query", "", []int{5, 10}, 4096, false},
		{"liveactivity", app, app + ".push-type.liveactivity", "", []int{5, 10}, 4096, true},
		{"pushtotalk", app, app + ".voip-ptt", "", []int{1, 5, 10}, 4096, false},
		{"widgets", app, app + ".push-type.widgets", "", []int{5, 10}, 4096, false},
		{"controls", app, app + ".push-type.controls", "", []int{5, 10}, 4096, false},
		// Apple's next one: APNs decides.
		{"hologram", app, app, "", []int{1, 5, 10}, 5120, false},
	} {
		t.Run(tt.pushType, func(t *testing.T) {
			t.Parallel()
			c, s := wire(t)
			payload := content[tt.pushType]
			job := func(named, extra string) string {
				return `{"token":"` + testToken + `","payload":` + payload + named + extra + `}`
			}
			named := `,"push_type":"` + tt.pushType + `"`
			check := func(topic, job, priority string) {
				t.Helper()
				o, r := pushJob(t, c, s, topic, job)
				if known := tt.pushType != "hologram"; known != (o.Class == apnsconn.Delivered) || !known && o.Reason != "InvalidPushType" {
					t.Errorf("%+v", o)
				}
				want := map[string]string{
					":method": "POST", ":scheme": "https", ":authority": s.Addr, ":path": "/3/device/" + testToken,
					"apns-topic": tt.topic, "apns-push-type": tt.pushType, "apns-id": idOf(job),
				}
				if priority != "" {
					want["apns-priority"] = priority
				}
				if tt.pushType == "voip" {
					want["apns-expiration"] = "0"
				}
				if got := r.Header.Map(); !maps.Equal(got, want) || len(r.Header) != len(want) {
					t.Errorf("headers\ngot  %v\nwant %v", got, want)
				}
				if !bytes.Equal(r.Body, []byte(payload)) {
					t.Errorf("payload %q", r.Body)
				}
			}
			check(tt.app, job(named, ""), tt.priority)
			check(tt.topic, job(named, ""), tt.priority) // an app that is only this
			if tt.inferred {
				check(tt.app, job("", ""), tt.priority)
			}
			if tt.topic != tt.app {
				check(tt.topic, job("", ""), tt.priority)
			}
			for p := range 12 {
				text := job(named, fmt.Sprintf(`,"priority":%d`, p))
				ok := false
				for _, a := range tt.allowed {
					ok = ok || a == p
				}
				if ok {
					check(tt.app, text, fmt.Sprint(p))
				} else if _, err := Parse([]byte(text), tt.app, "1"); !isFaultOf(err, "priority") {
					t.Errorf("priority %d: %v", p, err)
				}
			}
			payload = sized(tt.limit)
			check(tt.app, job(named, ""), tt.priority)
			payload = sized(tt.limit + 1)
			if _, err := Parse([]byte(job(named, "")), tt.app, "1"); !isFaultOf(err, "payload") {
				t.Errorf("%d bytes: %v", tt.limit+1, err)
			}
		})
	}
}

func isFaultOf(err error, key string) bool {
	var je *Error
	return errors.As(err, &je) && je.Key == key
}

// A job with channel_id, from its text to APNs.
func TestBroadcastOnTheWire(t *testing.T) {
	t.Parallel()
	const channel, id = "dHN0LXNyY2gtY2hubA==", "6b29fc40-ca47-1067-b31d-00dd010662da"
	c, s := wire(t)
	for _, tt := range []struct{ job, priority, expiration, id string }{
		{`{"channel_id":"` + channel + `","payload":{"aps":{}}}`, "10", "0", ""},
		{`{"channel_id":"` + channel + `","payload":{"aps":{}},"token":null,"push_type":"liveactivity","priority":"5","expiration":1999999999,"id":"` + id + `"}`, "5", "1999999999", id},
		{`{"channel_id":"` + channel + `","payload":` + sized(5120) + `,"priority":1,"expiration":0,"ttl":60,"ref":"r"}`, "1", "0", ""},
	} {
		o, r := pushJob(t, c, s, topic, tt.job)
		if tt.id == "" {
			tt.id = idOf(tt.job)
		}
		if o.Class != apnsconn.Delivered || o.APNsID != tt.id {
			t.Errorf("%+v", o)
		}
		want := map[string]string{
			":method": "POST", ":scheme": "https", ":authority": s.Addr, ":path": "/4/broadcasts/apps/" + topic, "apns-channel-id": channel,
			"apns-push-type": "liveactivity", "apns-priority": tt.priority, "apns-expiration": tt.expiration, "apns-request-id": tt.id,
		}
		if got := r.Header.Map(); !maps.Equal(got, want) || len(r.Header) != len(want) {
			t.Errorf("headers\ngot  %v\nwant %v", got, want)
		}
	}
	// The short forms make a payload as in any job.
	_, r := pushJob(t, c, s, topic, `{"channel_id":"`+channel+`","title":"Goal","aps":{"timestamp":1,"event":"update","content-state":{"home":1}},"data":{"k":2}}`)
	if want := `{"aps":{"alert":{"title":"Goal"},"timestamp":1,"event":"update","content-state":{"home":1}},"k":2}`; string(r.Body) != want {
		t.Errorf("payload %s", r.Body)
	}
	for job, key := range map[string]string{
		`{"channel_id":"` + channel + `","token":"` + testToken + `","payload":{}}`: "channel_id",
		`{"channel_id":"","payload":{}}`:                                            "channel_id",
		`{"channel_id":null,"payload":{}}`:                                          "token",
		`{"channel_id":["a"],"payload":{}}`:                                         "channel_id",
		`{"channel_id":"a b","payload":{}}`:                                         "channel_id",
		`{"channel_id":"a\r\nx: y","payload":{}}`:                                   "channel_id",
		`{"channel_id":"` + channel + `","payload":{},"push_type":"alert"}`:         "push_type",
		`{"channel_id":"` + channel + `","payload":{},"collapse_id":"c"}`:           "collapse_id",
		`{"channel_id":"` + channel + `","payload":{},"priority":7}`:                "priority",
		`{"channel_id":"` + channel + `","payload":` + sized(5121) + `}`:            "payload",
	} {
		if _, err := Parse([]byte(job), topic, "1"); !isFaultOf(err, key) {
			t.Errorf("%.100s: %v, want a fault of %s", job, err, key)
		}
	}
	if _, err := Parse([]byte(`{"channel_id":"`+channel+`","payload":{}}`), topic+".push-type.liveactivity", "1"); !isFaultOf(err, "topic") {
		t.Errorf("topic with a suffix: %v", err)
	}
}

// idOf is the apns-id of the job with the queue's id 1.
func idOf(job string) string { return string(appendUUID(nil, SeedOf("1", []byte(job)))) }
