package apnsconn

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestTopicFor has every type and suffix Apple documents, spelled out.
func TestTopicFor(t *testing.T) {
	t.Parallel()
	const bundle = "com.example.app"
	tests := []struct{ bundle, pushType, want string }{
		{bundle, "alert", bundle},
		{bundle, "background", bundle},
		{bundle, "voip", bundle + ".voip"},
		{bundle, "complication", bundle + ".complication"},
		{bundle, "fileprovider", bundle + ".pushkit.fileprovider"},
		{bundle, "location", bundle + ".location-query"},
		{bundle, "liveactivity", bundle + ".push-type.liveactivity"},
		{bundle, "pushtotalk", bundle + ".voip-ptt"},
		{bundle, "widgets", bundle + ".push-type.widgets"},
		{bundle, "controls", bundle + ".push-type.controls"},
		{"com.apple.mgmt.External.1234", "mdm", "com.apple.mgmt.External.1234"},
		{bundle + ".voip", "voip", bundle + ".voip"},                          // already there
		{bundle + ".voip", "pushtotalk", bundle + ".voip.voip-ptt"},           // not that suffix
		{bundle, "hologram", bundle}, {bundle, "", bundle}, {"", "alert", ""}, // unknown or absent
	}
	for _, tt := range tests {
		if got := TopicFor(tt.bundle, tt.pushType); got != tt.want {
			t.Errorf("TopicFor(%q, %q) = %q, want %q", tt.bundle, tt.pushType, got, tt.want)
		}
	}
}

// TestEveryPushTypeIsKnown: a new type also belongs in the test above, in the stand-in for
// APNs, and in the test that sends each type.
func TestEveryPushTypeIsKnown(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"pushtype_test.go", "apnstest/validate.go", "../worker/job/wire_test.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, pt := range pushTypes {
			if !strings.Contains(string(text), `"`+pt.name+`"`) {
				t.Errorf("apnsconn/%s lacks the push type %s", file, pt.name)
			}
		}
	}
}

// TestInferUndoesTopicFor: a topic with a suffix tells its type again.
func TestInferUndoesTopicFor(t *testing.T) {
	t.Parallel()
	for _, pt := range pushTypes {
		if pt.suffix == "" {
			continue
		}
		topic := TopicFor("com.example.app", pt.name)
		if got := InferPushType(topic, []byte(`{"aps":{"alert":"x"}}`)); got != pt.name {
			t.Errorf("InferPushType(%q) = %q, want %q", topic, got, pt.name)
		}
	}
}

func TestInferPushTypeByPayload(t *testing.T) {
	t.Parallel()
	tests := []struct{ payload, want string }{
		{`{"aps":{"alert":"x"}}`, "alert"},
		{`{"aps":{"alert":{"title":"x"}}}`, "alert"},
		{`{"aps":{"badge":0}}`, "alert"},
		{`{"aps":{"sound":"default"}}`, "alert"},
		{`{"aps":{"content-available":1,"badge":3}}`, "alert"},
		{" \n{ \"data\" : [ { } ] , \"aps\"\t:\r\n{ \"thread-id\" : \"a\" , \"alert\" : \"x\" } }", "alert"},
		{`{"aps":{"category":"{\"alert\":1}","alert":"x"}}`, "alert"},

		{`{"aps":{"content-available":1}}`, "background"},
		{`{"aps":{"content-available":1},"alert":"x"}`, "background"},               // beside aps, not in it
		{`{"data":{"alert":"x"},"aps":{"content-available":1}}`, "background"},      // in something else
		{`{"aps":{"content-available":1,"x":{"alert":1}}}`, "background"},           // too deep
		{`{"aps":{"content-available":1},"x":{"badge":1}}`, "background"},           // after aps has ended
		{`{"aps":{"category":"alert","thread-id":"sound"}}`, "background"},          // values, not keys
		{`{"aps":{"category":"\",\"alert\":\"x"}}`, "background"},                   // within a string
		{`{"aps":{"alert":null,"badge":null,"content-available":1}}`, "background"}, // null is absent
		{`{"x":"\"aps\":{\"alert\":1}"}`, "background"},
		{`{"aps":{"content-changed":true}}`, "background"}, // widgets and controls: by topic only
		{`{"aps":{"Alert":"x"}}`, "background"},
		{`{"aps":{}}`, "background"},
		{`{"aps":"alert"}`, "background"},
		{`{"aps":[{"alert":"x"}]}`, "background"},
		{`{}`, "background"},

		{`{"aps":{"timestamp":1,"event":"update","content-state":{}}}`, "liveactivity"},
		{`{"aps":{"timestamp":1,"event":"start","alert":{"title":"x"}}}`, "liveactivity"},
		{`{"mdm":"magic"}`, "mdm"},
		{`{"mdm":"x","aps":{"alert":"x"}}`, "alert"},
		{`{"mdm":"x","aps":{"content-available":1}}`, "background"},
		{`{"container-identifier":"NSFileProviderRootContainerItemIdentifier","domain":"d"}`, "fileprovider"},
		{`{"container-identifier":"x","aps":{"content-available":1}}`, "background"},
	}
	for _, tt := range tests {
		if !json.Valid([]byte(tt.payload)) {
			t.Errorf("%s is no JSON: the test is wrong", tt.payload)
		}
		if got := InferPushType("com.example.app", []byte(tt.payload)); got != tt.want {
			t.Errorf("InferPushType(%s) = %q, want %q", tt.payload, got, tt.want)
		}
	}
	for _, garbage := range []string{"", `"`, `"\`, `{"aps":`, `{"aps"`, `{"aps":{"alert"`, `}}}{"aps"`, "\xff", `{"aps":{"alert":`} {
		InferPushType("com.example.app", []byte(garbage)) // must not panic
	}
}

// FuzzInferPushType holds the scan against a real JSON decoder.
func FuzzInferPushType(f *testing.F) {
	for _, s := range []string{
		`{"aps":{"alert":"x"}}`, `{"aps":{"content-available":1}}`, `{"mdm":"x"}`, `{"container-identifier":"x"}`,
		`{"a":{"aps":{"alert":1}},"b":["aps",{"alert":1}]}`, `{"aps":{"event":"end"}}`, `{"aps":{"x":"\"}{"},"y":1}`, `{"aps":`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got := InferPushType("com.example.app", payload)
		var top map[string]json.RawMessage
		if json.Unmarshal(payload, &top) != nil || top == nil || strings.Contains(string(payload), `\`) || hasTwice(payload) {
			return // not an object, a key with escapes, or a key given twice: any type may come out
		}
		var aps map[string]json.RawMessage
		_ = json.Unmarshal(top["aps"], &aps)
		has := func(m map[string]json.RawMessage, key string) bool { return m[key] != nil && string(m[key]) != "null" }
		want := "background"
		switch {
		case has(aps, "content-state") || has(aps, "event"):
			want = "liveactivity"
		case has(aps, "alert") || has(aps, "badge") || has(aps, "sound"):
			want = "alert"
		case has(top, "mdm") && !has(top, "aps"):
			want = "mdm"
		case has(top, "container-identifier") && !has(top, "aps"):
			want = "fileprovider"
		}
		if got != want {
			t.Errorf("InferPushType(%s) = %q, want %q", payload, got, want)
		}
	})
}

// hasTwice reports whether one of the keys that matter stands in the text more
// than once.
func hasTwice(payload []byte) bool {
	for _, key := range []string{"aps", "mdm", "container-identifier", "content-state", "event", "alert", "badge", "sound"} {
		if strings.Count(string(payload), `"`+key+`"`) > 1 {
			return true
		}
	}
	return false
}

func TestDefaultPriority(t *testing.T) {
	t.Parallel()
	for _, pt := range pushTypes {
		n := validNotification()
		n.PushType, n.Priority = pt.name, DefaultPriority(pt.name)
		if err := n.Validate(); err != nil {
			t.Errorf("%s: %v", pt.name, err)
		}
		if want := map[string]int{"background": 5}[pt.name]; n.Priority != want {
			t.Errorf("DefaultPriority(%q) = %d, want %d", pt.name, n.Priority, want)
		}
	}
}

func BenchmarkInferPushType(b *testing.B) {
	payload := []byte(`{"aps":{"alert":{"title":"Your order","body":"It will be with you in ten minutes."},"badge":3},"order":123456}`)
	b.ReportAllocs()
	for b.Loop() {
		InferPushType("com.example.app", payload)
	}
}

// Meant is asked of each Live Activity, and of each key of a payload that is looked at: it
// makes nothing for what is right, and little for what is unknown.
func TestMeantIsCheap(t *testing.T) { // not parallel: allocations are counted
	words := []string{"passive", "active", "time-sensitive", "critical"}
	for _, test := range []struct {
		given, want string
		most        float64 // allocations
	}{
		{"active", "", 0},
		{"critical", "", 0},
		{"unknown", "", 2},
		{"timeSensitive", "time-sensitive", 2},
		{"time sensitive", "time-sensitive", 4},
	} {
		var got string
		if n := testing.AllocsPerRun(100, func() { got = Meant(test.given, words) }); got != test.want || n > test.most {
			t.Errorf("%s: %q with %v allocations, want %q with at most %v", test.given, got, n, test.want, test.most)
		}
	}
}
