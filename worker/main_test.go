package worker

import (
	"os"
	"strings"
	"testing"

	"propeller/apnsconn"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every class is in docs/operations.md.
func TestDocumented(t *testing.T) {
	t.Parallel()
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
