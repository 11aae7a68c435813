package jetstream

import (
	"fmt"
	"slices"
	"testing"
)

// Of very many buried jobs no more ids are kept than a list needs, about, and they are
// the first.
func TestFirstIDs(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 5, 1000} {
		f := firstIDs{limit: limit}
		const n = 50_000
		var want []string
		for i := range n {
			id := fmt.Sprintf("mfk3a9x1-%d", (i*7919)%n+1) // each once, in no order
			f.add(id)
			if want = append(want, id); len(f.ids) > 2*limit+1000 {
				t.Fatalf("%d are kept for a list of %d", len(f.ids), limit)
			}
		}
		slices.SortFunc(want, compareIDs)
		if got := f.sorted(); !slices.Equal(got, want[:limit]) {
			t.Errorf("%d: %.100q", limit, got)
		}
	}
}
