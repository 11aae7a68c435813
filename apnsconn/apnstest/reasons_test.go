package apnstest

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// The stand-in knows the reasons by itself, because it must not share a mistake with what it
// tests. Their statuses are those of the table that apnsconn is tested against.
func TestStatusOfEveryReason(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../testdata/apns-reasons.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Status int
		Reason string
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	statuses := make(map[string][]int)
	for _, r := range rows {
		if r.Reason != "*" {
			statuses[r.Reason] = append(statuses[r.Reason], r.Status)
		}
	}
	for reason, want := range statuses {
		if got := statusOf(reason); !slices.Contains(want, got) {
			t.Errorf("%s: %d, want one of %v", reason, got, want)
		}
	}
	if len(statuses) < 30 {
		t.Errorf("only %d reasons", len(statuses))
	}
}
