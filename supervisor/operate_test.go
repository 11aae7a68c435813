package supervisor

import (
	"errors"
	"testing"

	"propeller/apnsconn/apnstest"
)

// Each of many jobs goes to the app that it names, or is told that there is none.
func TestPutAll(t *testing.T) {
	const other = "com.example.other"
	w := newWorld(t, apnstest.Options{})
	w.start(w.app(topic) + w.app(other, "tube: elsewhere"))
	jobs := make([]NewJob, 90)
	for i := range jobs {
		jobs[i] = NewJob{App: []string{topic, other, "com.example.none"}[i%3], Body: []byte(jobBody(i))}
	}
	for i, s := range w.sup.PutAll(t.Context(), jobs) {
		if known := i%3 < 2; (s.ID != "") != known || (s.Err == nil) != known || !known && !errors.Is(s.Err, ErrNoApp) {
			t.Errorf("%d: id %q, %v", i, s.ID, s.Err)
		}
	}
	w.empty(topic)
	w.empty("elsewhere")
	seen := make(map[string]string) // by the path
	for _, r := range w.apns.Requests() {
		h := r.Header.Map()
		seen[h[":path"]] = h["apns-topic"]
	}
	for i, j := range jobs {
		got, sent := seen["/3/device/"+token(i)]
		if sent != (i%3 < 2) || sent && got != j.App {
			t.Errorf("%d, for %s: was sent: %v, for %q", i, j.App, sent, got)
		}
	}
}
