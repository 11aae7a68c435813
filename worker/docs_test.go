package worker

import (
	"os"
	"strings"
	"testing"

	"propeller/apnsconn"
)

// Every key of a job is in docs/job-format.md, and every class in
// docs/operations.md.
func TestDocumented(t *testing.T) {
	t.Parallel()
	format, err := os.ReadFile("../docs/job-format.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range jobKeys {
		if !strings.Contains(string(format), "`"+k.name+"`") {
			t.Errorf("docs/job-format.md lacks the key %s", k.name)
		}
	}
	operations, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for c := apnsconn.Delivered; c <= apnsconn.Unknown; c++ {
		if !strings.Contains(string(operations), "| `"+c.String()+"` |") {
			t.Errorf("docs/operations.md lacks the class %v", c)
		}
	}
}
