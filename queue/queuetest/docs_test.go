package queuetest

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// docs/queues.md has a row for each difference that the suite knows, and no other.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n| `queuetest.Engine` |")
	text, _, _ = strings.Cut(text, "\n\n")
	known := make(map[string]bool)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Engine]()) {
		if known[f.Name] = true; f.Name != "New" && !strings.Contains(text, "\n| `"+f.Name+"` |") {
			t.Errorf("docs/queues.md has no row for %s", f.Name)
		}
	}
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` |"); ok && !known[name] {
			t.Errorf("docs/queues.md has a row for %q", name)
		}
	}
}
