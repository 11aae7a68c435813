package apnsconn

import (
	"errors"
	"strings"
	"testing"
)

func validNotification() *Notification {
	return &Notification{
		Token:    strings.Repeat("0a1b2c3d", 8),
		Topic:    "com.example.app",
		PushType: "alert",
		Payload:  []byte(`{"aps":{"alert":"x"}}`),
	}
}

func seconds(s int64) *int64 { return &s }

func body(size int) []byte { return []byte(`{"x":"` + strings.Repeat("x", size-8) + `"}`) }

func TestValidateAccepts(t *testing.T) {
	t.Parallel()
	tests := map[string]func(n *Notification){
		"plain":                   func(n *Notification) {},
		"shortest token":          func(n *Notification) { n.Token = "01234567" },
		"longest token":           func(n *Notification) { n.Token = strings.Repeat("ab", 200) },
		"160 digits":              func(n *Notification) { n.Token = strings.Repeat("ab", 80) },
		"upper-case token":        func(n *Notification) { n.Token = strings.Repeat("AB", 32) },
		"lower-case id":           func(n *Notification) { n.ID = "123e4567-e89b-12d3-a456-4266554400a0" },
		"upper-case id":           func(n *Notification) { n.ID = "123E4567-E89B-12D3-A456-4266554400A0" },
		"longest collapse id":     func(n *Notification) { n.CollapseID = strings.Repeat("x", 64) },
		"collapse id with space":  func(n *Notification) { n.CollapseID = "game 1: score" },
		"priority 1":              func(n *Notification) { n.Priority = 1 },
		"priority 10":             func(n *Notification) { n.Priority = 10 },
		"background, priority 5":  func(n *Notification) { n.PushType, n.Priority = "background", 5 },
		"background, no priority": func(n *Notification) { n.PushType = "background" },
		"unknown type":            func(n *Notification) { n.PushType, n.Priority = "hologram", 1 },
		"unknown type, 5120":      func(n *Notification) { n.PushType, n.Payload = "hologram", body(5120) },
		"do not store":            func(n *Notification) { n.Expiration = seconds(0) },
		"expires":                 func(n *Notification) { n.Expiration = seconds(1900000000) },
		"4096 bytes":              func(n *Notification) { n.Payload = body(4096) },
		"voip, 5120 bytes":        func(n *Notification) { n.PushType, n.Payload = "voip", body(5120) },
		"smallest payload":        func(n *Notification) { n.Payload = []byte(`{}`) },
		"space around payload":    func(n *Notification) { n.Payload = []byte(" \r\n\t{}\n ") },
		"suffixed topic":          func(n *Notification) { n.Topic = "com.example.app.push-type.liveactivity" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := validNotification()
			change(n)
			if err := n.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change    func(n *Notification)
		key, text string
	}{
		"no token":          {func(n *Notification) { n.Token = "" }, "token", "is missing"},
		"short token":       {func(n *Notification) { n.Token = "0123" }, "token", "has 4 characters, want 8 to 400 hex digits"},
		"long token":        {func(n *Notification) { n.Token = strings.Repeat("ab", 201) }, "token", "has 402 characters, want 8 to 400 hex digits"},
		"odd token":         {func(n *Notification) { n.Token = "012345678" }, "token", "has an odd number of hex digits, 9"},
		"token not hex":     {func(n *Notification) { n.Token = "0123456789abcdexyz" }, "token", `"01234567"… is not hex: character 16`},
		"token with spaces": {func(n *Notification) { n.Token = "<01234567 89abcdef>" }, "token", `"<0123456"… is not hex: character 1`},
		"token as path":     {func(n *Notification) { n.Token = "../../3/device/0" }, "token", `"../../3/"… is not hex: character 1`},
		"token not ASCII":   {func(n *Notification) { n.Token = "01234567é" }, "token", `"01234567"… is not hex: character 9`},

		"no topic":         {func(n *Notification) { n.Topic = "" }, "topic", "is missing"},
		"topic injection":  {func(n *Notification) { n.Topic = "com.x\r\napns-id: 1" }, "topic", "is not visible ASCII: character "},
		"topic with space": {func(n *Notification) { n.Topic = "com.x " }, "topic", "is not visible ASCII: character "},
		"topic not ASCII":  {func(n *Notification) { n.Topic = "com.é" }, "topic", "is not visible ASCII: character "},
		"long topic":       {func(n *Notification) { n.Topic = strings.Repeat("x", 256) }, "topic", "has 256 bytes, at most 255 are allowed"},

		"no push type":        {func(n *Notification) { n.PushType = "" }, "push_type", "is missing"},
		"push type injection": {func(n *Notification) { n.PushType = "alert\x00" }, "push_type", "is not visible ASCII: character "},
		"long push type":      {func(n *Notification) { n.PushType = strings.Repeat("x", 65) }, "push_type", "has 65 bytes, at most 64 are allowed"},

		"id no UUID":     {func(n *Notification) { n.ID = "42" }, "id", "not a UUID in its canonical form"},
		"id in braces":   {func(n *Notification) { n.ID = "{123e4567-e89b-12d3-a456-4266554400a}" }, "id", "not a UUID"},
		"id without -":   {func(n *Notification) { n.ID = "123e4567ae89ba12d3aa456a4266554400a0" }, "id", "not a UUID"},
		"id not hex":     {func(n *Notification) { n.ID = "123e4567-e89b-12d3-a456-42665544000g" }, "id", "not a UUID"},
		"id misplaced -": {func(n *Notification) { n.ID = "123e-4567e89b-12d3-a456-4266554400a0" }, "id", "not a UUID"},

		"long collapse id":      {func(n *Notification) { n.CollapseID = strings.Repeat("x", 65) }, "collapse_id", "has 65 bytes, at most 64 are allowed"},
		"collapse id in bytes":  {func(n *Notification) { n.CollapseID = strings.Repeat("é", 33) }, "collapse_id", "has 66 bytes"},
		"collapse id injection": {func(n *Notification) { n.CollapseID = "a\nb" }, "collapse_id", "is not printable ASCII: character "},
		"collapse id DEL":       {func(n *Notification) { n.CollapseID = "a\x7f" }, "collapse_id", "is not printable ASCII: character "},
		"collapse id ends in ␠": {func(n *Notification) { n.CollapseID = "a " }, "collapse_id", "begins or ends with a space"},

		"priority 2":               {func(n *Notification) { n.Priority = 2 }, "priority", "is 2, want 1, 5 or 10"},
		"priority -1":              {func(n *Notification) { n.Priority = -1 }, "priority", "is -1, want 1, 5 or 10"},
		"background, priority 10":  {func(n *Notification) { n.PushType, n.Priority = "background", 10 }, "priority", "is 10, want 5 for push type background"},
		"liveactivity, priority 1": {func(n *Notification) { n.PushType, n.Priority = "liveactivity", 1 }, "priority", "is 1, want 5 or 10 for push type liveactivity"},

		"expiration before 1970": {func(n *Notification) { n.Expiration = seconds(-1) }, "expiration", "-1 is not a time in seconds since 1970, or 0"},
		"expiration in millis":   {func(n *Notification) { n.Expiration = seconds(1900000000000) }, "expiration", "1900000000000 is not a time in seconds"},

		"no payload":           {func(n *Notification) { n.Payload = nil }, "payload", "is empty"},
		"4097 bytes":           {func(n *Notification) { n.Payload = body(4097) }, "payload", "has 4097 bytes, at most 4096 are allowed"},
		"voip, 5121 bytes":     {func(n *Notification) { n.PushType, n.Payload = "voip", body(5121) }, "payload", "has 5121 bytes, at most 5120 are allowed"},
		"payload an array":     {func(n *Notification) { n.Payload = []byte(`[{}]`) }, "payload", "is not a JSON object"},
		"payload a string":     {func(n *Notification) { n.Payload = []byte(`"{}"`) }, "payload", "is not a JSON object"},
		"payload half":         {func(n *Notification) { n.Payload = []byte(`{`) }, "payload", "is not a JSON object"},
		"payload other half":   {func(n *Notification) { n.Payload = []byte(`}`) }, "payload", "is not a JSON object"},
		"payload only space":   {func(n *Notification) { n.Payload = []byte(" \n ") }, "payload", "is not a JSON object"},
		"payload with garbage": {func(n *Notification) { n.Payload = []byte("{}\x00") }, "payload", "is not a JSON object"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := validNotification()
			tt.change(n)
			err := n.Validate()
			var f *FieldError
			if !errors.As(err, &f) {
				t.Fatalf("got %v, want a *FieldError", err)
			}
			if f.Key != tt.key || !strings.HasPrefix(f.Why, tt.text) {
				t.Errorf("got %s: %s\nwant %s: %s", f.Key, f.Why, tt.key, tt.text)
			}
			if want := "apnsconn: " + f.Key + ": " + f.Why; err.Error() != want {
				t.Errorf("error %q, want %q", err, want)
			}
		})
	}
}

// TestErrorsKeepTokens: a device token identifies a person's device.
func TestErrorsKeepTokens(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("ab", 31) + "g0"
	n := validNotification()
	n.Token = token
	for _, err := range []error{n.Validate(), func() error { _, err := NormalizeToken(token); return err }()} {
		if err == nil || strings.Contains(err.Error(), token[:9]) {
			t.Errorf("error shows more than 8 characters of the token: %v", err)
		}
	}
}

func TestNormalizeToken(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"01234567":    "01234567",
		"ABCDEF0123":  "abcdef0123",
		"abCDef01":    "abcdef01",
		"":            "",
		"0123":        "",
		"0123456g":    "",
		" 01234567":   "",
		"01234567\n1": "",
	} {
		got, err := NormalizeToken(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("NormalizeToken(%q) = %q, %v; want %q", in, got, err, want)
		}
		if f, ok := errors.AsType[*FieldError](err); err != nil && (!ok || f.Key != "token") {
			t.Errorf("NormalizeToken(%q): error %v is no *FieldError of the token", in, err)
		}
	}
}

// TestHotPathAllocatesNothing: these run once for every push.
func TestHotPathAllocatesNothing(t *testing.T) {
	n := validNotification()
	n.ID, n.CollapseID, n.Priority, n.Expiration = "123e4567-e89b-12d3-a456-4266554400a0", "x", 5, seconds(1900000000)
	b := testBroadcast()
	for name, f := range map[string]func(){
		"Validate":       func() { _ = n.Validate() },
		"of a broadcast": func() { _ = b.Validate() },
		"NormalizeToken": func() { _, _ = NormalizeToken(n.Token) },
		"TopicFor":       func() { _ = TopicFor(n.Topic, "alert") },
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

// FuzzValidate: what passes can be written as HTTP/2 headers.
func FuzzValidate(f *testing.F) {
	f.Add("01234567", "", "com.example.app", "alert", "", "", 0, int64(0), []byte(`{}`))
	f.Add("ABCDEFGH", "", "a\r\nb", "background", "123e4567-e89b-12d3-a456-4266554400a0", " x", 10, int64(-1), []byte(nil))
	f.Add("", "dHN0LXNyY2gtY2hubA==", "com.example.app", "liveactivity", "", "", 10, int64(0), []byte(`{}`))
	f.Add("", "..", "a/../../3", "liveactivity", "", "", 10, int64(0), []byte(`{}`))
	f.Fuzz(func(t *testing.T, token, channel, topic, pushType, id, collapse string, priority int, expiration int64, payload []byte) {
		n := Notification{token, channel, topic, pushType, id, collapse, priority, &expiration, payload}
		err := n.Validate()
		if err != nil {
			if f := err.(*FieldError); f.Key == "token" && len(token) > 16 && strings.Contains(f.Why, token[:16]) {
				t.Errorf("error holds the token: %v", err)
			}
			return
		}
		if err := checkHeaders(&n); err != nil {
			t.Errorf("passed, but Send refuses it: %v", err)
		}
		for _, v := range []string{token, channel, topic, pushType, id, collapse} {
			if len(v) > maxToken || strings.TrimSpace(v) != v || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("header value %q passed", v)
			}
		}
		if len(payload) == 0 || len(payload) > MaxPayloadVoIP {
			t.Errorf("payload of %d bytes passed", len(payload))
		}
		if channel != "" {
			if token != "" || strings.ContainsAny(topic, "/?#%") {
				t.Errorf("broadcast to token %q, topic %q", token, topic)
			}
			return
		}
		lower, err := NormalizeToken(token)
		if err != nil || !strings.EqualFold(lower, token) {
			t.Errorf("NormalizeToken(%q) = %q, %v", token, lower, err)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	n := validNotification()
	b.ReportAllocs()
	for b.Loop() {
		if err := n.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}
