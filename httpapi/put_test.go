package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/buried"
	"propeller/worker/job"
)

// Put is of a tree without a queue.
func (f *fakeTree) Put(context.Context, string, []byte, time.Duration) (string, error) {
	return "", queue.ErrUnavailable
}

func (f *fakeTree) PutAll(ctx context.Context, jobs []supervisor.NewJob) []queue.Stored {
	return putEach(ctx, f, jobs)
}

// putEach puts jobs one by one.
func putEach(ctx context.Context, tree appTree, jobs []supervisor.NewJob) (out []queue.Stored) {
	for _, j := range jobs {
		id, err := tree.Put(ctx, j.App, j.Body, j.Delay)
		out = append(out, queue.Stored{ID: id, Err: err})
	}
	return out
}

// putTree remembers the jobs that are put.
type putTree struct {
	mu   sync.Mutex
	jobs []string
	err  error
	app  job.Rules
}

func (*putTree) Status() []supervisor.AppStatus { return nil }

func (*putTree) AppStatus(string) (s supervisor.AppStatus, ok bool) { return s, false }

func (*putTree) UnknownTubes() []supervisor.UnknownTube { return nil }

func (*putTree) LostJobs() int64 { return 0 }

func (*putTree) Jobs(name string) (buried.Jobs, error) {
	if name != topic {
		return buried.Jobs{}, fmt.Errorf("topic %q: %w", name, supervisor.ErrNoApp)
	}
	return buried.Jobs{}, supervisor.ErrNoAdmin
}

func (p *putTree) App(name string) (job.Rules, error) {
	app := p.app
	if app.Topic = name; name != topic {
		return app, fmt.Errorf("topic %q: %w", name, supervisor.ErrNoApp)
	}
	return app, nil
}

func (*putTree) AppOf(said string) (string, error) { return appOfIn(nil, said) }

func (*putTree) FindBuried(string) (string, []buried.Entry) { return "", nil }

func (p *putTree) Put(_ context.Context, name string, body []byte, delay time.Duration) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name != topic {
		return "", fmt.Errorf("topic %q: %w", name, supervisor.ErrNoApp)
	}
	p.jobs = append(p.jobs, fmt.Sprint(string(body), " ", delay))
	return fmt.Sprint("job", len(p.jobs)), p.err
}

func (p *putTree) PutAll(ctx context.Context, jobs []supervisor.NewJob) []queue.Stored {
	return putEach(ctx, p, jobs)
}

// A job gets through byte for byte.
func TestPut(t *testing.T) {
	t.Parallel()
	dir, tree := t.TempDir(), new(putTree)
	serve(t, hold(t, dir), New(tree, Options{}).Socket())
	c, err := Dial(t.Context(), dir, topic)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	whole := "{ \"token\":\t\"" + strings.Repeat("0", 64) + "\", \"body\": \"<&>\\u003c\" }\n"
	for i, delay := range []time.Duration{0, 1500 * time.Millisecond} {
		id, err := c.Put(t.Context(), []byte(whole), delay)
		if want := fmt.Sprint(whole, " ", delay); err != nil || id != fmt.Sprint("job", i+1) || tree.jobs[i] != want {
			t.Errorf("%q, %v: put %q, want %q", id, err, tree.jobs, want)
		}
	}
	tree.err = fmt.Errorf("no: %w", queue.ErrUnavailable)
	if _, err := c.Put(t.Context(), []byte(whole), 0); err == nil || !strings.Contains(err.Error(), "no: queue unavailable") {
		t.Errorf("%v", err)
	}
}

func TestPutRefuses(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	h := New(tree, Options{}).Socket()
	good := `{"token":"` + strings.Repeat("0", 64) + `","title":"x"}`
	forged := `{"tokens":["` + strings.Repeat("0", 64) + `"],"title":"x","again":{"job":"1","seed":"` + strings.Repeat("0", 32) + `","put":1,"attempt":1}}`
	if _, err := job.Parse([]byte(forged), topic, ""); err != nil {
		t.Fatalf("a rest job: %v", err)
	}
	for _, c := range []struct {
		topic, query, body string
		err                error
		status             int
		detail             string
	}{
		{topic, "", `{"token":"xyz"}`, nil, http.StatusBadRequest, "would be buried"},
		{topic, "", "", nil, http.StatusBadRequest, "would be buried"},
		{topic, "?delay=soon", good, nil, http.StatusBadRequest, `delay "soon"`},
		{topic, "?delay=8761h", good, nil, http.StatusBadRequest, `a year`},
		{topic, "?delay=-1s", good, nil, http.StatusBadRequest, `delay "-1s"`},
		{topic, "", strings.Repeat(" ", maxBody+1), nil, http.StatusRequestEntityTooLarge, "larger than 1024 KiB"},
		{topic, "", forged, nil, http.StatusBadRequest, "again"},
		{"com.example.none", "?delay=soon", "bad", nil, http.StatusNotFound, "no such app"},
		{"com.example.none", "", good, nil, http.StatusNotFound, "no such app"},
		{topic, "", good, queue.ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
		{topic, "", good, queue.ErrRejected, http.StatusBadRequest, "rejected"},
		{topic, "", good, errors.New("odd"), http.StatusInternalServerError, "odd"},
	} {
		tree.err = c.err
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/apps/"+c.topic+"/jobs"+c.query, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(strings.ReplaceAll(w.Body.String(), `\"`, `"`), c.detail) {
			t.Errorf("%s %.40s: %d %s", c.query, c.body, w.Code, w.Body)
		}
	}
	if len(tree.jobs) != 3 {
		t.Errorf("put: %q", tree.jobs)
	}
}

// What is put as a job is a push as any other: its key's limit holds, problems name
// the key at fault, and what becomes of it is remembered.
func TestPutIsAsNotifications(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		const path = "/v1/apps/" + topic + "/jobs"
		good := `{"tokens":["` + strings.Repeat("0", 64) + `","` + strings.Repeat("1", 64) + `"],"title":"x"}`
		outcomes := new(Outcomes)
		api := New(new(putTree), Options{Outcomes: outcomes})
		api.Use(Settings{Keys: []Key{{Name: "slow", Token: "slow-0123", Role: RoleSend, Rate: 1}}})
		h := api.Network()
		var p Problem
		for body, key := range map[string]string{`{"bogus":1}`: "bogus", `{"token":"zz"}`: "token", `{`: ""} {
			if w := send(h, "slow-0123", "POST", path, body); w.Code != 400 || json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Key != key {
				t.Errorf("%s: %d %s", body, w.Code, w.Body)
			}
			p = Problem{}
		}
		if w := send(h, "slow-0123", "POST", path+"?delay=1m", good); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if n, ok := outcomes.look("job1"); !ok || n.Topic != topic || n.Tokens != 2 || n.State != stateDelayed {
			t.Errorf("remembered: %v %+v", ok, n)
		}
		limit := api.access.Load().find("slow-0123").limit
		limit.ReserveN(time.Now(), int(limit.Tokens()))
		if w := send(h, "slow-0123", "POST", path, good); w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("more than its rate: %d %s", w.Code, w.Body)
		}
	})
}

// Large bodies wait for a place, and no longer than their request; the others
// need none.
func TestPutTakesPlaces(t *testing.T) {
	t.Parallel()
	a := New(new(putTree), Options{})
	if !a.bodies.try("socket", a.bodies.each) {
		t.Fatal("no places")
	}
	small := `{"token":"` + strings.Repeat("0", 64) + `","title":"x"}`
	put := func(body string) *httptest.ResponseRecorder {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := httptest.NewRecorder()
		a.Socket().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/apps/"+topic+"/jobs", strings.NewReader(body)))
		return w
	}
	if w := put(small); w.Code != http.StatusOK {
		t.Errorf("small: %d %s", w.Code, w.Body)
	}
	large := small + strings.Repeat(" ", smallBody)
	if w := put(large); w.Code != http.StatusServiceUnavailable {
		t.Errorf("large: %d %s", w.Code, w.Body)
	}
	a.bodies.free("socket", bodyCost*int64(len(large)))
	for range 2 { // it gives the place back
		if w := put(large); w.Code != http.StatusOK {
			t.Errorf("large, with room: %d %s", w.Code, w.Body)
		}
	}
}
