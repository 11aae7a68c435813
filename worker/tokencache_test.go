package worker

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestMemoryDead(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		m := newTokenCache(tokenLimit)
		at := time.Now().Add(-48 * time.Hour)
		m.setDead(topic, token(1), "Unregistered", 410, at)
		want := tokenState{dead: true, reason: "Unregistered", status: 410, since: at, at: at}
		if v := m.look(topic, token(1), time.Now()); v.at.Equal(at) && v.since.Equal(at) {
			v.at, v.since = at, at
			if v != want {
				t.Errorf("%+v, want %+v", v, want)
			}
		} else {
			t.Errorf("since %v, at %v, want %v", v.since, v.at, at)
		}
		if v := m.look(topic, token(2), time.Now()); v != (tokenState{}) {
			t.Errorf("of another token: %+v", v)
		}
		time.Sleep(tokenTime - time.Second)
		if v := m.look(topic, token(1), time.Now()); !v.dead {
			t.Error("forgotten before the hour is over")
		}
		m.setDead(topic, token(1), "BadDeviceToken", 400, time.Now()) // said again: an hour more
		time.Sleep(tokenTime - time.Second)
		if v := m.look(topic, token(1), time.Now()); !v.dead || v.reason != "BadDeviceToken" || v.status != 400 {
			t.Errorf("said again: %+v", v)
		}
		time.Sleep(time.Second)
		if v := m.look(topic, token(1), time.Now()); v != (tokenState{}) {
			t.Errorf("after an hour: %+v", v)
		}
		if n := m.len(); n != 0 {
			t.Errorf("%d remembered after an hour", n)
		}
	})
}

// An answer without a time of its own holds from when it came, and none is made
// up for it.
func TestMemoryWithoutTime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		m, came := newTokenCache(tokenLimit), time.Now()
		m.setDead(topic, token(1), "Unregistered", 410, time.Time{})
		time.Sleep(time.Minute)
		if v := m.look(topic, token(1), time.Now()); !v.dead || !v.since.IsZero() || !v.at.Equal(came) {
			t.Errorf("%+v", v)
		}
	})
}

// What is known of a token holds for one topic, and of "" nothing is known.
func TestMemoryTopics(t *testing.T) {
	t.Parallel()
	m, now := newTokenCache(tokenLimit), time.Now()
	m.setDead(topic+".voip", token(1), "BadDeviceToken", 400, now)
	m.throttle(topic, token(2), now.Add(time.Minute))
	for _, tt := range []struct {
		topic      string
		token      int
		dead, wait bool
	}{
		{topic, 1, false, false},
		{topic + ".voip", 1, true, false},
		{topic, 2, false, true},
		{topic + ".voip", 2, false, false},
	} {
		if v := m.look(tt.topic, token(tt.token), now); v.dead != tt.dead || v.wait > 0 != tt.wait {
			t.Errorf("%s, token %d: %+v", tt.topic, tt.token, v)
		}
	}
	m.delivered(topic, token(1))
	if m.len() != 2 {
		t.Errorf("%d remembered after a delivery to the token in another topic", m.len())
	}
	m.throttle(topic, "", now.Add(time.Minute))
	m.setDead(topic, "", "ChannelNotRegistered", 400, now)
	if v := m.look(topic, "", now); v != (tokenState{}) || m.len() != 2 {
		t.Errorf("of no token: %+v", v)
	}
}

func TestMemoryThrottle(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		m := newTokenCache(tokenLimit)
		m.throttle(topic, token(1), time.Now()) // over already
		m.throttle(topic, token(1), time.Now().Add(-time.Second))
		if m.len() != 0 {
			t.Error("a pause that is over is remembered")
		}
		m.throttle(topic, token(1), time.Now().Add(10*time.Second))
		if v := m.look(topic, token(1), time.Now()); v != (tokenState{wait: 10 * time.Second}) {
			t.Errorf("%+v", v)
		}
		time.Sleep(4 * time.Second)
		if v := m.look(topic, token(1), time.Now()); v != (tokenState{wait: 6 * time.Second}) {
			t.Errorf("%+v", v)
		}
		if v := m.look(topic, token(2), time.Now()); v != (tokenState{}) {
			t.Errorf("of another token: %+v", v)
		}
		time.Sleep(6 * time.Second)
		if v := m.look(topic, token(1), time.Now()); v != (tokenState{}) {
			t.Errorf("when the pause is over: %+v", v)
		}
		m.throttle(topic, token(1), time.Now().Add(24*time.Hour))
		if v := m.look(topic, token(1), time.Now()); v.wait != tokenTime {
			t.Errorf("a pause of a day: %v", v.wait)
		}
	})
}

// A token can be dead and throttled: one that was registered anew is sent to
// again, and may be answered 429.
func TestMemoryBoth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		m := newTokenCache(tokenLimit)
		m.setDead(topic, token(1), "Unregistered", 410, time.Now())
		m.throttle(topic, token(1), time.Now().Add(time.Minute))
		if v := m.look(topic, token(1), time.Now()); !v.dead || v.wait != time.Minute || m.len() != 1 {
			t.Errorf("%+v", v)
		}
		time.Sleep(time.Minute)
		if v := m.look(topic, token(1), time.Now()); !v.dead || v.wait != 0 {
			t.Errorf("after the pause: %+v", v)
		}
		m.delivered(topic, token(1))
		m.delivered(topic, token(1))
		if v := m.look(topic, token(1), time.Now()); v != (tokenState{}) || m.len() != 0 {
			t.Errorf("after a delivery: %+v", v)
		}
	})
}

// The oldest leave first; what is told again is new.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	m := newTokenCache(3)
	now := time.Now()
	for _, i := range []int{1, 2, 3, 1, 4} {
		m.setDead(topic, token(i), "Unregistered", 410, now)
	}
	for i, want := range map[int]bool{1: true, 2: false, 3: true, 4: true} {
		if got := m.look(topic, token(i), now).dead; got != want {
			t.Errorf("token %d: dead %v, want %v", i, got, want)
		}
	}
	m.delivered(topic, token(1))
	m.throttle(topic, token(5), now.Add(time.Minute))
	if m.len() != 3 || !m.look(topic, token(3), now).dead {
		t.Errorf("%d remembered; a free place was not used", m.len())
	}
}

// Telling something new drops what is past, so that a memory in use does not
// stay full of it.
func TestMemoryDropsPast(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		m := newTokenCache(tokenLimit)
		for i := range 1000 {
			m.setDead(topic, token(i), "Unregistered", 410, time.Now())
		}
		time.Sleep(tokenTime)
		m.setDead(topic, token(1000), "Unregistered", 410, time.Now())
		if m.len() != 1 {
			t.Errorf("%d remembered", m.len())
		}
	})
}

// A short pause told last does not cut short what was told before.
func TestMemoryOutlivesPause(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		m := newTokenCache(tokenLimit)
		m.setDead(topic, token(1), "Unregistered", 410, time.Now())
		m.throttle(topic, token(2), time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		if m.look(topic, token(2), time.Now()).wait != 0 || !m.look(topic, token(1), time.Now()).dead {
			t.Error("forgotten with the pause")
		}
		m.forgetAll(time.Since(m.base)) // of a Look that was overtaken by Dead
		if !m.look(topic, token(1), time.Now()).dead {
			t.Error("forgotten though it holds")
		}
	})
}

// The ring, the map and the count agree whatever workers do at the same time.
func TestMemoryConcurrent(t *testing.T) {
	t.Parallel()
	const limit = 50
	m := newTokenCache(limit)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 3))
			for range 5000 {
				i := rng.IntN(2 * limit)
				switch rng.IntN(5) {
				case 0:
					m.setDead(topic, token(i), "Unregistered", 410, time.Now())
				case 1:
					m.throttle(topic, token(i), time.Now().Add(time.Duration(rng.IntN(100))*time.Microsecond))
				case 2:
					m.delivered(topic, token(i))
				default:
					m.look(topic, token(i), time.Now())
				}
			}
		})
	}
	wg.Wait()
	ring := 0
	for e := m.order.newer; e != &m.order; e = e.newer {
		if m.known[e.key] != e {
			t.Fatal("an entry of the ring is not the map's")
		}
		ring++
	}
	if ring != len(m.known) || ring != m.len() || ring > limit {
		t.Errorf("ring %d, map %d, count %d, limit %d", ring, len(m.known), m.len(), limit)
	}
}

func TestMemoryAllocates(t *testing.T) {
	m, now := newTokenCache(tokenLimit), time.Now()
	look := func() { m.look(topic, testToken, now); m.delivered(topic, testToken) }
	if n := testing.AllocsPerRun(1000, look); n != 0 {
		t.Errorf("%v allocations when empty", n)
	}
	for i := range 1000 {
		m.setDead(topic, token(i), "Unregistered", 410, now)
	}
	if n := testing.AllocsPerRun(1000, look); n != 0 {
		t.Errorf("%v allocations when not empty", n)
	}
}

// A full memory's size is as its documentation says.
func TestMemorySize(t *testing.T) {
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	m := newTokenCache(tokenLimit)
	if size := heap() - before; size > 10_000 {
		t.Errorf("an empty memory takes %d bytes", size)
	}
	now := time.Now()
	for i := range tokenLimit + 1000 {
		m.setDead(topic, token(i), "Unregistered", 410, now)
	}
	size := heap() - before
	t.Logf("%d tokens take %d KiB", m.len(), size>>10)
	if size > 10<<20 {
		t.Errorf("%d tokens take %d bytes", m.len(), size)
	}
	runtime.KeepAlive(m)
}

func BenchmarkMemoryLook(b *testing.B) {
	now := time.Now()
	for _, n := range []int{0, 1, tokenLimit} {
		m := newTokenCache(tokenLimit)
		tokens := make([]string, 1024)
		for i := range tokens {
			tokens[i] = token(rand.Int())
		}
		for i := range n {
			m.setDead(topic, token(i), "Unregistered", 410, now)
		}
		b.Run(map[int]string{0: "empty", 1: "one", tokenLimit: "full"}[n], func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					m.look(topic, tokens[i%len(tokens)], now)
				}
			})
		})
	}
}
