package config

import (
	"strings"
	"testing"
)

// Apps of one topic each have a name, and tubes named after it. Without a name everything is
// as it was when apps had none.
func TestNames(t *testing.T) {
	t.Parallel()
	const hook = "feedback: {webhook: 'http://localhost', secret: " + signing + "}"
	cfg := mustParse(t, `
defaults: {server: mock, `+hook+`}
apps:
  - topic: com.example.app
  - {topic: com.example.app, name: app-sandbox}
  - {name: bulk, topic: com.example.app, tube: slow}
  - {topic: com.example.old, tube: older}
  - {name: com.example.named, topic: com.example.named, feedback: {tube: records}}
  - {name: `+strings.Repeat("n", 190)+`, topic: com.example.app}
`, Options{})
	want := [][4]string{
		{"com.example.app", "com.example.app", "com.example.app", "com.example.app.feedback"},
		{"app-sandbox", "com.example.app", "app-sandbox", "app-sandbox.feedback"},
		{"bulk", "com.example.app", "slow", "bulk.feedback"},
		{"com.example.old", "com.example.old", "older", "older.feedback"}, // where its records have always been
		{"com.example.named", "com.example.named", "com.example.named", "records"},
		{strings.Repeat("n", 190), "com.example.app", strings.Repeat("n", 190), strings.Repeat("n", 190) + ".feedback"},
	}
	for i, a := range cfg.Apps {
		if got := [4]string{a.Name, a.Topic, a.Tube, a.Feedback.Tube}; got != want[i] {
			t.Errorf("got  %q\nwant %q", got, want[i])
		}
	}
	if one, err := Single(map[string]string{"topic": "com.example.app", "name": "lane", "server": "mock"}, Options{}); err != nil || one.Apps[0].Name != "lane" || one.Apps[0].Tube != "lane" {
		t.Errorf("%+v, %v", one, err)
	}
}
