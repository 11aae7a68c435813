package job

import (
	"os"
	"strings"
	"testing"
)

// Every key of a job is in docs/job-format.md.
func TestKeysAreDocumented(t *testing.T) {
	t.Parallel()
	format, err := os.ReadFile("../../docs/job-format.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range jobKeys {
		if !strings.Contains(string(format), "`"+k.name+"`") {
			t.Errorf("docs/job-format.md lacks the key %s", k.name)
		}
	}
}
