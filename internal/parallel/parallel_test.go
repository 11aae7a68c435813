package parallel

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Every call is made once, with no more than the limit at once.
func TestDo(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 5, 100} {
		synctest.Test(t, func(t *testing.T) {
			calls := make([]atomic.Int64, n)
			var now, most atomic.Int64
			began := time.Now()
			ok := Do(5, n, func(i int) bool {
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(time.Second)
				now.Add(-1)
				calls[i].Add(1)
				return true
			})
			for i := range calls {
				if calls[i].Load() != 1 {
					t.Errorf("%d calls for %d of %d", calls[i].Load(), i, n)
				}
			}
			if took := time.Since(began); !ok || most.Load() > 5 || took != time.Duration((n+4)/5)*time.Second {
				t.Errorf("n %d: %v, %d at once, in %v", n, ok, most.Load(), took)
			}
		})
	}
}

// After a call that returns false no other begins; the calls under way end.
func TestDoStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var begun, ended atomic.Int64
		ok := Do(3, 100, func(i int) bool {
			begun.Add(1)
			defer ended.Add(1)
			time.Sleep(time.Duration(i+1) * time.Second)
			return i != 1
		})
		if ok || begun.Load() != 4 || ended.Load() != 4 { // 0 to 2, and 3 after 0
			t.Errorf("%v, %d begun, %d ended", ok, begun.Load(), ended.Load())
		}
	})
}

// A panic reaches the caller, once the other calls have ended.
func TestDoPanics(t *testing.T) {
	t.Parallel()
	var ended atomic.Int64
	defer func() {
		if v := recover(); v != "why" || ended.Load() != 2 {
			t.Errorf("%v after %d calls", v, ended.Load())
		}
	}()
	var begun sync.WaitGroup
	begun.Add(3)
	Do(3, 3, func(i int) bool {
		begun.Done()
		begun.Wait()
		if i == 1 {
			panic("why")
		}
		ended.Add(1)
		return true
	})
}

// Each item is handed over once.
func TestEach(t *testing.T) {
	t.Parallel()
	var sum atomic.Int64
	Each(2, []int64{1, 20, 300}, func(n int64) { sum.Add(n) })
	if sum.Load() != 321 {
		t.Errorf("%d", sum.Load())
	}
}
