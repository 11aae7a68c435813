package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/internal/peakheap"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/job"
)

// fullAdmin is a queue with a thousand buried jobs.
type fullAdmin struct{ openAdmin }

func (fullAdmin) TubeStats(context.Context, string) (queue.TubeStats, error) {
	return queue.TubeStats{Buried: MaxJobs}, nil
}

// List leaves it at what is known.
func (fullAdmin) List(context.Context, string, queue.State, func([]queue.StoredJob) error) error {
	return queue.ErrCut
}

// newFullAPI has as many buried jobs as a list may hold, with the longest texts there
// are.
func newFullAPI() *API {
	jobs := jobsOf(fullAdmin{})
	for i := range MaxJobs {
		long := fmt.Sprint(i, strings.Repeat("\x01", 600)) // in JSON each is six bytes
		jobs.Index.Told(tube, fmt.Sprint(i), job.Burial{Job: long, Ref: long, Reason: long, APNsID: long, At: time.Now()})
	}
	app := fullApp()
	api := New(&fakeTree{apps: []supervisor.AppStatus{app}, jobs: jobs}, Options{})
	api.Use(Settings{Keys: testKeys})
	return api
}

// stuck is a client that does not read.
type stuck struct {
	http.ResponseWriter
	mu    *sync.Mutex
	bytes *int // of all answers that wait for it
	until <-chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	s.mu.Lock()
	*s.bytes += len(b)
	s.mu.Unlock()
	<-s.until
	return len(b), nil
}

// However many lists of buried jobs are asked for and not read, what waits to be read is
// bounded, for one key to the half of it; a list that is read holds nothing.
func TestListsUnread(t *testing.T) {
	t.Parallel()
	api := newFullAPI()
	h := api.Network()
	ctx, cancel := context.WithCancel(t.Context())
	until := make(chan struct{})
	var mu sync.Mutex
	var asked sync.WaitGroup
	waiting := map[string]*int{"admin": new(int), "sender": new(int)}
	cookie := newGuest(t, h).signIn("sender-0123").cookie
	for range 40 {
		for _, path := range []string{"/v1/apps/" + topic + "/buried", "/apps/" + topic + "/buried"} {
			for name, bytes := range waiting {
				r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
				if strings.HasPrefix(path, "/v1") {
					r.Header.Set("Authorization", "Bearer "+name+"-0123")
				} else {
					r.AddCookie(cookie)
					bytes = waiting["sender"]
				}
				asked.Go(func() { h.ServeHTTP(stuck{httptest.NewRecorder(), &mu, bytes, until}, r) })
			}
		}
	}
	unread := func(name string) int {
		mu.Lock()
		defer mu.Unlock()
		return *waiting[name]
	}
	for name := range waiting {
		waitFor(t, func() bool { return unread(name) >= askBudget/2-askCost })
	}
	time.Sleep(100 * time.Millisecond) // for those that would be let in
	for name := range waiting {
		if n := unread(name); n > askBudget/2 {
			t.Errorf("%s: %d bytes wait to be read, of %d", name, n, askBudget/2)
		}
	}
	cancel()
	close(until)
	asked.Wait()
	if n := api.asking.takenBy("admin") + api.asking.takenBy("sender"); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

// Alone in the process: a list takes no more than what is set aside for it, whatever is in it.
func TestPeakOfAList(t *testing.T) {
	api := newFullAPI()
	h := api.Network()
	cookie := newGuest(t, h).signIn("admin-0123").cookie
	for _, path := range []string{"/v1/apps/" + topic + "/buried", "/apps/" + topic + "/buried"} {
		peak, ok := peakheap.Within(raceSlack*askCost, func() {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", "Bearer admin-0123")
			r.AddCookie(cookie)
			h.ServeHTTP(nowhere{make(http.Header)}, r)
		})
		t.Logf("%s: %d MB", path, peak>>20)
		if !ok {
			t.Errorf("%s takes %d bytes, %d are set aside", path, peak, askCost)
		}
	}
}
