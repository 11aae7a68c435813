package job

import (
	"runtime"
	"slices"
	"testing"

	"propeller/internal/peakheap"
)

// No job takes more memory than befits its size, while it is read and afterwards.
func TestPeakOfAJob(t *testing.T) {
	for _, n := range []int{60 << 10, 256 << 10} {
		for name, text := range worstShapes(n) {
			body := []byte(text)
			var j Job
			most := 7*len(body) + 16<<10 // and the body itself
			if took, ok := peakheap.Within(most, func() { j, _ = Parse(body, topic, "1") }); !ok {
				t.Errorf("%s, %d bytes: %d at the peak, at most %d are allowed", name, len(body), took, most)
			}
			runtime.KeepAlive(j)
			runtime.KeepAlive(body)
		}
		body := []byte(fanOutText(manyTokens(n/67), ""))
		var jobs []Job
		most := 4 * len(body)
		took, ok := peakheap.Within(10*most, func() {
			jobs = jobs[:0]
			for range 10 {
				j, _ := Parse(slices.Clone(body), topic, "1")
				jobs = append(jobs, j)
			}
		})
		if !ok {
			t.Errorf("usual tokens, %d bytes: %d for each, at most %d are allowed", len(body), took/10, most)
		}
		runtime.KeepAlive(jobs)
	}
}
