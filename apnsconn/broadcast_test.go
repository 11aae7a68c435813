package apnsconn

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"propeller/apnsconn/apnstest"
)

const (
	testChannel = "dHN0LXNyY2gtY2hubA=="
	testUUID    = "123e4567-e89b-12d3-a456-4266554400a0"
)

func testBroadcast() *Notification {
	return &Notification{
		ChannelID:  testChannel,
		Topic:      "com.example.app",
		PushType:   "liveactivity",
		ID:         testUUID,
		Priority:   5,
		Expiration: seconds(0),
		Payload:    []byte(`{"aps":{"timestamp":1750000000,"event":"update","content-state":{}}}`),
	}
}

// The whole request, field by field, with what may enter the header table.
func TestBroadcastHeaders(t *testing.T) {
	t.Parallel()
	h := newHeaderEncoder("api.push.apple.com")
	dec := hpack.NewDecoder(4096, nil)
	want := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "api.push.apple.com"},
		{Name: ":path", Value: "/4/broadcasts/apps/com.example.app"},
		{Name: "apns-channel-id", Value: testChannel},
		{Name: "apns-push-type", Value: "liveactivity"},
		{Name: "apns-priority", Value: "5"},
		{Name: "apns-request-id", Value: testUUID},
		{Name: "apns-expiration", Value: "0"},
	}
	sortByName := func(a, b hpack.HeaderField) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(want, sortByName)
	var sizes []int
	for i := range 3 {
		b := h.encode(testBroadcast())
		sizes = append(sizes, len(b))
		got, err := dec.DecodeFull(b)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, sortByName)
		if !slices.Equal(got, want) {
			t.Errorf("block %d:\ngot  %v\nwant %v", i, got, want)
		}
	}
	if sizes[1] != len(want) || sizes[2] != len(want) { // a byte for each, once the table has them
		t.Errorf("blocks of %v bytes", sizes)
	}
	size := 0
	for _, f := range want {
		size += int(f.Size())
	}
	if got := h.listSize(testBroadcast()); got < uint64(size) || got > uint64(size)+150 {
		t.Errorf("list size %d, is %d", got, size)
	}
}

// Broadcasts and device pushes share a connection, and only what is meant
// arrives.
func TestBroadcastOverTLS(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	cert := s.ClientCert("com.example.app")
	c := mustDial(t, s, Config{Certificate: &cert})
	unnamed := testBroadcast()
	unnamed.ID = ""
	largest := testBroadcast()
	largest.Payload = body(maxPayloadBroadcast)
	for i, n := range []*Notification{testBroadcast(), testPush(), unnamed, testBroadcast(), largest} {
		if err := n.Validate(); err != nil {
			t.Errorf("push %d: %v", i, err)
		}
		o := c.Push(within(t), n)
		if o.Class != Delivered || o.Err != nil || o.APNsID == "" || n.ID != "" && o.APNsID != n.ID {
			t.Fatalf("push %d: %+v", i, o)
		}
	}
	requests := s.Requests()
	want := map[string]string{
		":method": "POST", ":scheme": "https", ":authority": s.Addr, ":path": "/4/broadcasts/apps/com.example.app",
		"apns-channel-id": testChannel, "apns-push-type": "liveactivity", "apns-priority": "5",
		"apns-expiration": "0", "apns-request-id": testUUID,
	}
	for _, i := range []int{0, 3, 4} {
		r := requests[i]
		if len(r.Header) != len(want) || !mapsEqual(r.Header.Map(), want) {
			t.Errorf("request %d: headers %v, want %v", i, r.Header.Map(), want)
		}
	}
	if string(requests[0].Body) != string(testBroadcast().Payload) || requests[4].BodySize != 5120 {
		t.Errorf("bodies %q, %d bytes", requests[0].Body, requests[4].BodySize)
	}
	if _, ok := requests[2].Header.Lookup("apns-request-id"); ok {
		t.Error("an apns-request-id that nobody gave")
	}
	if s.Dials() != 1 {
		t.Errorf("%d dials", s.Dials())
	}
}

func TestBroadcastOutcomes(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true})
	c := mustDial(t, s, Config{})
	for reason, want := range map[string]Class{
		"BadChannelId": Token, "ChannelNotRegistered": Token, "BroadcastFeatureNotEnabled": Credential,
		"FeatureNotEnabled": Credential, "MissingChannelId": Rejected, "BadExpirationDate": Rejected,
	} {
		s.SetScript(apnstest.Always(apnstest.Answer{Status: 400, Reason: reason}))
		if o := c.Push(within(t), testBroadcast()); o.Class != want || o.Status != 400 || o.Reason != reason || o.APNsID != testUUID {
			t.Errorf("%s: %+v, want %v", reason, o, want)
		}
	}
}

func TestBroadcastValidate(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(n *Notification){
		"as it is":         func(*Notification) {},
		"no id":            func(n *Notification) { n.ID = "" },
		"no priority":      func(n *Notification) { n.Priority = 0 },
		"priority 1":       func(n *Notification) { n.Priority = 1 },
		"priority 10":      func(n *Notification) { n.Priority = 10 },
		"expires":          func(n *Notification) { n.Expiration = seconds(1900000000) },
		"5120 bytes":       func(n *Notification) { n.Payload = body(5120) },
		"other alphabet":   func(n *Notification) { n.ChannelID = "a-_Z09+/==" },
		"one character":    func(n *Notification) { n.ChannelID = "a" },
		"longest":          func(n *Notification) { n.ChannelID = strings.Repeat("a", 255) },
		"bundle id .voip":  func(n *Notification) { n.Topic = "com.example.voip" },
		"bundle with dash": func(n *Notification) { n.Topic = "com.Ex-ample.app2" },
	} {
		n := testBroadcast()
		change(n)
		if err := n.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := checkHeaders(n); err != nil {
			t.Errorf("%s: Send refuses: %v", name, err)
		}
	}
	for name, tt := range map[string]struct {
		change func(n *Notification)
		key    string
	}{
		"token too":         {func(n *Notification) { n.Token = testToken }, "token"},
		"not Base64":        {func(n *Notification) { n.ChannelID = "a b" }, "channel_id"},
		"header injection":  {func(n *Notification) { n.ChannelID = "a\r\nb: c" }, "channel_id"},
		"long channel":      {func(n *Notification) { n.ChannelID = strings.Repeat("a", 256) }, "channel_id"},
		"no topic":          {func(n *Notification) { n.Topic = "" }, "topic"},
		"topic with suffix": {func(n *Notification) { n.Topic = "com.example.app.push-type.liveactivity" }, "topic"},
		"topic as path":     {func(n *Notification) { n.Topic = "com.example.app/../x" }, "topic"},
		"topic as query":    {func(n *Notification) { n.Topic = "com.example.app?x" }, "topic"},
		"other type":        {func(n *Notification) { n.PushType = "alert" }, "push_type"},
		"no type":           {func(n *Notification) { n.PushType = "" }, "push_type"},
		"no expiration":     {func(n *Notification) { n.Expiration = nil }, "expiration"},
		"bad expiration":    {func(n *Notification) { n.Expiration = seconds(-1) }, "expiration"},
		"priority":          {func(n *Notification) { n.Priority = 7 }, "priority"},
		"id":                {func(n *Notification) { n.ID = "x" }, "id"},
		"collapse id":       {func(n *Notification) { n.CollapseID = "x" }, "collapse_id"},
		"payload":           {func(n *Notification) { n.Payload = body(5121) }, "payload"},
		"no payload":        {func(n *Notification) { n.Payload = nil }, "payload"},
	} {
		n := testBroadcast()
		tt.change(n)
		var f *FieldError
		if err := n.Validate(); !errors.As(err, &f) || f.Key != tt.key {
			t.Errorf("%s: %v, want a fault of %s", name, err, tt.key)
		}
	}
}

// What would make another request than was meant is not sent, validated or not.
func TestBroadcastRefusedBySend(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(t *testing.T, c *Conn, p *peer) {
		for key, change := range map[string]func(*Notification){
			"channel_id": func(n *Notification) { n.ChannelID = "a\r\nb" },
			"topic":      func(n *Notification) { n.Topic = "x/../../3/device/00" },
			"token":      func(n *Notification) { n.Token = testToken },
		} {
			n := testBroadcast()
			change(n)
			var f *FieldError
			if o := c.Push(t.Context(), n); o.Class != Rejected || !errors.As(o.Err, &f) || f.Key != key {
				t.Errorf("%s: %+v", key, o)
			}
		}
		if n := p.opened(); n != 0 {
			t.Errorf("%d streams opened", n)
		}
	})
}

// The answer to a broadcast has two ids, in any order; the notification's is
// the apns-request-id.
func TestBroadcastAnswerID(t *testing.T) {
	t.Parallel()
	id, request := hpack.HeaderField{Name: "apns-id", Value: "APNS"}, hpack.HeaderField{Name: "apns-request-id", Value: testUUID}
	for want, fields := range map[string][][]hpack.HeaderField{
		testUUID: {{id, request}, {request, id}, {request}},
		"APNS":   {{id}, {id, {Name: "apns-request-id", Value: strings.Repeat("x", 65)}}},
	} {
		for _, order := range fields {
			h := answerHead{}
			for _, f := range order {
				h.field(f)
			}
			if h.apnsID != want || h.fault != "" {
				t.Errorf("%v: %q, want %q", order, h.apnsID, want)
			}
		}
	}
}
