package buried

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"propeller/queue"
	"propeller/worker/job"
)

// What the index keeps of a job is little, however large the job is and whatever is in it.
func TestEntriesAreSmall(t *testing.T) {
	const n, most = 100, 4 << 10
	token, long := strings.Repeat("0", 64), strings.Repeat("y", 60_000)
	tokens := make([]string, 900)
	for i := range tokens {
		tokens[i] = fmt.Sprintf("%064x", i)
	}
	x := NewIndex(slog.New(slog.DiscardHandler))
	for name, body := range map[string]string{
		"a list":         `{"tokens":["` + strings.Join(tokens, `","`) + `"],"title":"x"}`,
		"a long payload": `{"token":"` + token + `","data":{"x":"` + long + `"}}`,
		"a long ref":     `{"token":"` + token + `","title":"x","ref":"` + long + `"}`,
		"a long key":     `{"token":"` + token + `","` + long + `":1}`,
		"a long token":   `{"token":"` + long + `","title":"x"}`,
		"no JSON":        long,
	} {
		before := heap()
		for i := range n {
			id := fmt.Sprint(name, i)
			x.learn(entryOf("t", "com.example.app", queue.StoredJob{ID: id, Body: []byte(body)}))
			b := job.BurialOf([]byte(body), "com.example.app")
			b.Job, b.At = id+"w", time.Now()
			x.Told("t", id+"w", b)
		}
		if took := (heap() - before) / (2 * n); took > most {
			t.Errorf("%s: %d bytes are kept of each job", name, took)
		}
	}
	runtime.KeepAlive(x)
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
