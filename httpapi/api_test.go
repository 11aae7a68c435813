package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/supervisor"
	"propeller/worker"
	"propeller/worker/buried"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

const (
	topic = "com.example.app"
	tube  = "the-tube"
)

const patience = time.Minute // far above what a busy machine needs

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("still not")
		}
	}
}

// fakeTree has one app, whose jobs are those of a test.
type fakeTree struct {
	apps    []supervisor.AppStatus
	unknown []supervisor.UnknownTube
	jobs    buried.Jobs
	err     error
}

func (f *fakeTree) Status() []supervisor.AppStatus { return f.apps }

func (f *fakeTree) AppStatus(name string) (supervisor.AppStatus, bool) { return statusIn(f.apps, name) }

// statusIn is AppStatus of a tree with these apps.
func statusIn(apps []supervisor.AppStatus, name string) (supervisor.AppStatus, bool) {
	for _, a := range apps {
		if a.Name == name {
			return a, true
		}
	}
	return supervisor.AppStatus{}, false
}

func (f *fakeTree) UnknownTubes() []supervisor.UnknownTube { return f.unknown }

func (*fakeTree) LostJobs() int64 { return 17 }

func (f *fakeTree) Jobs(name string) (buried.Jobs, error) {
	if name != topic {
		return buried.Jobs{}, fmt.Errorf("topic %q: %w", name, supervisor.ErrNoApp)
	}
	return f.jobs, f.err
}

func (f *fakeTree) App(name string) (job.Rules, error) { return appIn(f.apps, name) }

func (f *fakeTree) AppOf(topic string) (string, error) { return appOfIn(f.apps, topic) }

// appIn is App of a tree with these apps; that of the constant topic is always there.
func appIn(apps []supervisor.AppStatus, name string) (job.Rules, error) {
	for _, a := range apps {
		if a.Name == name {
			return job.Rules{Topic: a.Topic}, nil
		}
	}
	if name != topic {
		return job.Rules{}, noApp(name)
	}
	return job.Rules{Topic: name}, nil
}

// appOfIn is AppOf of a tree with these apps.
func appOfIn(apps []supervisor.AppStatus, said string) (string, error) {
	var of []string
	for _, a := range apps {
		if a.Topic == said {
			of = append(of, a.Name)
		}
	}
	switch {
	case slices.Contains(of, said), len(of) == 0 && said == topic:
		return said, nil
	case len(of) == 0:
		return "", fmt.Errorf("topic %q: %w", said, supervisor.ErrNoApp)
	case len(of) == 1:
		return of[0], nil
	}
	return "", &supervisor.AmbiguousError{Topic: said, Apps: of}
}

func (f *fakeTree) FindBuried(id string) (string, []buried.Entry) {
	if f.jobs.Index == nil {
		return "", nil
	}
	if found := f.jobs.Index.Find(id); len(found) > 0 {
		return topic, found
	}
	return "", nil
}

// jobsOf returns the view of a queue's buried jobs, with an empty index.
func jobsOf(q queue.Admin) buried.Jobs {
	return buried.Jobs{Queue: q, Index: buried.NewIndex(slog.New(slog.DiscardHandler)), Tube: tube, Topic: topic}
}

// buriedJobs returns the buried jobs of a real queue, for three reasons, and their ids by
// reason. The last job is not JSON.
func buriedJobs(t *testing.T) (buried.Jobs, map[string][]string) {
	t.Helper()
	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{beanstalktest.Start(t).Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer c.Close(ctx)
	ids := make(map[string][]string)
	reasons := []string{"413 PayloadTooLarge", "400 BadTopic", "job: not UTF-8"}
	view := jobsOf(q.(queue.Admin))
	for i := range 30 {
		body := fmt.Appendf(nil, `{"token":"%064x","ref":"ref %d","n":1}`, i, i)
		id := ""
		if i%3 == 2 {
			body = fmt.Append(nil, "\xff no JSON ", i)
		} else {
			id = fmt.Sprint(500 + i) // the producer's id; the queue's differs by now
			body = fmt.Appendf(body[:len(body)-1], `,"again":{"job":%q,"seed":"%032d","put":1,"attempt":2,"bury":%q,"class":"rejected","status":4%d,"at":%d}}`, id, 0, reasons[i%3], i, i)
		}
		if _, err := q.Put(ctx, tube, body, queue.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		jobs, err := c.Receive(ctx, 1)
		if err != nil || len(jobs) != 1 {
			t.Fatal(len(jobs), err)
		}
		why := reasons[i%3]
		if err := jobs[0].Bury(ctx, nil); err != nil {
			t.Fatal(err)
		}
		ids[why] = append(ids[why], cmp.Or(id, jobs[0].ID()))
	}
	return view, ids
}

// buriedOps are what Local and Client have in common.
type buriedOps interface {
	List(ctx context.Context, s Selection) (BuriedList, error)
	Show(ctx context.Context, id string) (BuriedJob, error)
	Kick(ctx context.Context, c Choice) (Settled, error)
	Delete(ctx context.Context, c Choice) (Settled, error)
}

var _, _ buriedOps = Local{}, (*Client)(nil)

// An operator's session, once on the queue itself and once over the socket,
// against real beanstalkds: both do the same.
func TestLocalAndClient(t *testing.T) {
	t.Parallel()
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		jobs, ids := buriedJobs(t)
		session(t, Local{jobs}, ids)
	})
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		jobs, ids := buriedJobs(t)
		dir := t.TempDir()
		serve(t, hold(t, dir), New(&fakeTree{jobs: jobs}, Options{}).Socket())
		c, err := Dial(t.Context(), dir, topic)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		session(t, c, ids)
	})
}

func session(t *testing.T, d buriedOps, ids map[string][]string) {
	t.Helper()
	ctx := t.Context()
	list := func(reason string, limit int) (got []string, more bool) {
		t.Helper()
		l, err := d.List(ctx, Selection{Reason: reason, Limit: limit})
		if err != nil || l.Incomplete != "" || !l.Complete {
			t.Fatalf("%v, %+v", err, l)
		}
		for _, j := range l.Jobs {
			if j.Body != "" || j.BodyBase64 != nil || j.Class != "rejected" || j.Buried.IsZero() {
				t.Errorf("in the list: %+v", j)
			}
			got = append(got, j.ID)
		}
		return got, l.More
	}
	if got, more := list("", 0); len(got) != 30 || more {
		t.Fatalf("%d jobs, more: %v", len(got), more)
	}
	if got, more := list("payloadtoo", 4); !slices.Equal(got, ids["413 PayloadTooLarge"][:4]) || !more {
		t.Errorf("%v, more: %v", got, more)
	}
	if got, _ := list("nothing of the kind", 0); len(got) != 0 {
		t.Errorf("%v", got)
	}
	first := ids["413 PayloadTooLarge"][0]
	if j, err := d.Show(ctx, first); err != nil || j.Body != fmt.Sprintf(`{"token":"%064x","ref":"ref 0","n":1}`, 0) || j.Reason != "413 PayloadTooLarge" || j.Ref != "ref 0" {
		t.Errorf("%+v, %v", j, err)
	}
	last := ids["job: not UTF-8"][9]
	if j, err := d.Show(ctx, last); err != nil || string(j.BodyBase64) != "\xff no JSON 29" || j.Body != "" {
		t.Errorf("%+v, %v", j, err)
	}
	wrong := func(err error, want int) {
		t.Helper()
		var p *Problem
		if errors.As(err, &p) {
			if p.Status != want || p.Title == "" || p.Detail == "" {
				t.Errorf("%+v, want %d", p, want)
			}
		} else if err == nil || statusOf(err) != want {
			t.Errorf("%v, want %d", err, want)
		}
	}
	_, err := d.Show(ctx, "4711")
	wrong(err, 404)
	_, err = d.Show(ctx, "kick/and more?%2f")
	wrong(err, 400)
	_, err = d.List(ctx, Selection{Limit: MaxJobs + 1})
	wrong(err, 400)
	for _, c := range []Choice{{}, {All: true, Reason: "x"}, {IDs: []string{"1"}, All: true}, {All: true, Limit: -1}, {IDs: make([]string, MaxJobs+1)}} {
		_, err := d.Kick(ctx, c)
		wrong(err, 400)
	}
	_, err = d.Delete(ctx, Choice{IDs: []string{"4711"}})
	wrong(err, 404)

	settled := func(s Settled, err error) Settled {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := settled(d.Delete(ctx, Choice{Reason: "PAYLOAD", Limit: 3})); s.Jobs != 3 || len(s.IDs) != 3 || !s.More {
		t.Errorf("%+v", s)
	}
	if s := settled(d.Kick(ctx, Choice{IDs: []string{last, "4711"}})); s.Jobs != 1 || !strings.Contains(s.Incomplete, "4711") {
		t.Errorf("%+v", s)
	}
	if s := settled(d.Kick(ctx, Choice{Reason: "badtopic"})); s.Jobs != 10 || len(s.IDs) != 10 || s.More {
		t.Errorf("%+v", s)
	}
	if got, _ := list("", 0); len(got) != 16 {
		t.Errorf("%d left", len(got))
	}
	if s := settled(d.Delete(ctx, Choice{All: true})); s.Jobs != 16 || s.More {
		t.Errorf("%+v", s)
	}
	if got, _ := list("", 0); len(got) != 0 {
		t.Errorf("%v left", got)
	}
}

func TestApps(t *testing.T) {
	t.Parallel()
	app := func(topic string, change func(s *supervisor.AppStatus)) supervisor.AppStatus {
		s := supervisor.AppStatus{Name: topic, Topic: topic, Tube: topic, Health: supervisor.Health{State: supervisor.Running}, Counters: new(worker.Counters), Steps: new(supervisor.Steps)}
		if change != nil {
			change(&s)
		}
		return s
	}
	since := time.Unix(1e9, 0).UTC()
	tree := &fakeTree{apps: []supervisor.AppStatus{
		app("a", func(s *supervisor.AppStatus) {
			s.Workers = []worker.Status{{Serving: true, Reserved: 3, InFlight: 2, Connected: true, Received: 9, Finished: 6}, {Waiting: "apns not reachable: x"}}
			s.Counters.Buried.Add(2)
			s.Steps.Restarted.Add(1)
		}),
		app("b", func(s *supervisor.AppStatus) {
			s.Health = supervisor.Health{State: supervisor.Broken, Reason: "403 X", Since: since}
		}),
		app("c", func(s *supervisor.AppStatus) {
			s.Health = supervisor.Health{State: supervisor.TubePaused, Reason: "until y", Since: since, Until: since}
		}),
		app("d", func(s *supervisor.AppStatus) {
			s.Health, s.Asleep, s.Workers = supervisor.Health{State: supervisor.Idle}, true, make([]worker.Status, 2)
		}),
		app("e", func(s *supervisor.AppStatus) {
			s.Webhook = &supervisor.Webhook{Down: true, Reason: "500", Since: since, Counters: new(feedback.WebhookCounters), Stalled: &supervisor.Stall{Reason: "y"}}
		}),
	}}
	h := New(tree, Options{}).Socket()
	var got Apps
	ask(t, h, "GET", "/v1/apps", "", 200, &got)
	none := Pushes{Ended: map[string]int64{}}
	want := []App{
		{Name: "a", Topic: "a", Tube: "a", State: supervisor.Running, Ready: true, Workers: []Worker{{Serving: true, Connected: true, Held: 3, InFlight: 2, Received: 9, Finished: 6}, {Waiting: "apns not reachable: x"}},
			Pushes: Pushes{Ended: map[string]int64{}, Buried: 2}, Watchdog: watchdog{Restarted: 1}},
		{Name: "b", Topic: "b", Tube: "b", State: supervisor.Broken, Reason: "403 X", Since: since, Workers: []Worker{}, Pushes: none},
		{Name: "c", Topic: "c", Tube: "c", State: supervisor.TubePaused, Ready: true, Reason: "until y", Since: since, Workers: []Worker{}, Pushes: none},
		{Name: "d", Topic: "d", Tube: "d", State: supervisor.Idle, Ready: true, Asleep: true, Workers: make([]Worker, 2), Pushes: none},
		{Name: "e", Topic: "e", Tube: "e", State: supervisor.Running, Ready: true, Workers: []Worker{}, Pushes: none, Webhook: &Webhook{Down: true, Reason: "500", Since: since, Stalled: "y"}},
	}
	if !reflect.DeepEqual(got.Apps, want) {
		t.Errorf("%+v\nwant\n%+v", got.Apps, want)
	}
	ask(t, h, "GET", "/healthz", "", 200, new(struct{}))
}

// ask makes one request of a handler; the answer must be of the type that its
// status asks for.
func ask(t *testing.T, h http.Handler, method, path, body string, status int, out any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	want := "application/json"
	if _, problem := out.(*Problem); problem {
		want = problemType
	}
	if w.Code != status || w.Header().Get("Content-Type") != want {
		t.Fatalf("%s %s: %d %s; want %d %s\n%s", method, path, w.Code, w.Header().Get("Content-Type"), status, want, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
		t.Fatal(err)
	}
}

// brokenAdmin fails with what the test says.
type brokenAdmin struct {
	queue.Admin
	err error
}

func (b brokenAdmin) Peek(context.Context, string, string) (queue.StoredJob, error) {
	return queue.StoredJob{}, b.err
}
func (b brokenAdmin) TubeStats(context.Context, string) (queue.TubeStats, error) {
	return queue.TubeStats{}, b.err
}

// Whatever is asked wrongly, or goes wrong, is a problem as JSON with the
// status that tells which.
func TestProblems(t *testing.T) {
	t.Parallel()
	const base = "/v1/apps/" + topic + "/buried"
	tests := []struct {
		name, method, path, body string
		admin                    error // of the queue
		tree                     error
		status                   int
		say                      string
	}{
		{"no such path", "GET", "/v2", "", nil, nil, 404, "/v2"},
		{"no such method", "DELETE", base, "", nil, nil, 405, "DELETE"},
		{"no such app", "GET", "/v1/apps/com.example.none/buried", "", nil, nil, 404, "com.example.none"},
		{"a limit of letters", "GET", base + "?limit=x", "", nil, nil, 400, "limit"},
		{"a limit of 0", "GET", base + "?limit=0", "", nil, nil, 400, "limit"},
		{"a broken query", "GET", base + "?reason=%zz", "", nil, nil, 400, "query"},
		{"no body", "POST", base + "/kick", "", nil, nil, 400, "selects jobs"},
		{"a list", "POST", base + "/kick", `[1]`, nil, nil, 400, "selects jobs"},
		{"an unknown key", "POST", base + "/kick", `{"everything":true}`, nil, nil, 400, "everything"},
		{"more than one value", "POST", base + "/kick", `{"all":true}{"all":true}`, nil, nil, 400, "more"},
		{"a huge body", "POST", base + "/delete", `{"reason":"` + strings.Repeat("x", maxBody) + `"}`, nil, nil, 413, "larger than 1024 KiB"},
		{"queue away", "GET", base + "/7", "", fmt.Errorf("x: %w", queue.ErrUnavailable), nil, 503, "unavailable"},
		{"time over", "GET", base + "/7", "", context.DeadlineExceeded, nil, 503, "deadline"},
		{"a queue without operators", "GET", base + "/7", "", nil, supervisor.ErrNoAdmin, 501, "cannot be asked"},
		{"what nobody foresaw", "GET", base + "/7", "", errors.New("x"), nil, 500, "x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := New(&fakeTree{jobs: jobsOf(brokenAdmin{err: test.admin}), err: test.tree}, Options{}).Socket()
			var p Problem
			ask(t, h, test.method, test.path, test.body, test.status, &p)
			if p.Status != test.status || p.Title != http.StatusText(test.status) || !strings.Contains(p.Detail, test.say) {
				t.Errorf("%+v", p)
			}
		})
	}
}

// A folder without a daemon is told apart from one whose daemon cannot be asked.
func TestDialNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Dial(t.Context(), dir, topic); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := Dial(t.Context(), dir+"/none", topic); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no folder: %v", err)
	}
	_, stop := serve(t, hold(t, dir), New(new(fakeTree), Options{}).Socket())
	stop()
	// Another test's child has the listener, too, until its program begins.
	waitFor(t, func() bool {
		c, err := Dial(t.Context(), dir, topic)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, ErrNoDaemon)
	})
	if _, err := Dial(t.Context(), "/"+strings.Repeat("x", 200), topic); err == nil || errors.Is(err, ErrNoDaemon) {
		t.Errorf("a path too long: %v", err)
	}
}

// slowAdmin answers when it is told to.
type slowAdmin struct {
	queue.Admin
	asked  chan struct{}
	answer chan struct{}
}

func (s slowAdmin) Peek(context.Context, string, string) (queue.StoredJob, error) {
	s.asked <- struct{}{}
	<-s.answer
	return queue.StoredJob{}, queue.ErrNotFound
}
func (slowAdmin) TubeStats(context.Context, string) (queue.TubeStats, error) {
	return queue.TubeStats{}, queue.ErrUnavailable
}

// No more requests of a key ask the queue than its share allows; one more waits for
// its turn, as long as its caller does. Another key's need not.
func TestRequestsAtOnce(t *testing.T) {
	t.Parallel()
	admin := slowAdmin{asked: make(chan struct{}), answer: make(chan struct{})}
	api := New(&fakeTree{jobs: jobsOf(admin)}, Options{})
	api.Use(Settings{Keys: testKeys})
	h := api.Socket()
	const path = "/v1/apps/" + topic + "/buried/7"
	var wg sync.WaitGroup
	for range api.asking.each / askCost {
		wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)) })
		<-admin.asked
	}
	wg.Go(func() { send(api.Network(), "admin-0123", "GET", path, "") })
	select {
	case <-admin.asked:
	case <-time.After(patience):
		t.Fatal("another key's request waits")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "about buried jobs at once") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	close(admin.answer)
	wg.Wait()
	ask(t, h, "GET", "/v1/apps", "", 200, new(Apps))
}

// Every request is in the table of docs/http-api.md, with the role that it takes.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	api := New(new(fakeTree), Options{})
	roles := map[Role]string{roleNone: "", RoleRead: "read", RoleSend: "send", RoleAdmin: "admin"}
	for _, r := range append(api.routes(), api.profiles()[0]) {
		row := fmt.Sprintf("\n| `%s` | %s |", strings.NewReplacer("...", "", "{$}", "").Replace(r.pattern), roles[r.role])
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/http-api.md lacks %s", row)
		}
	}
}

// GET /v1/notifications/{id} finds a job that is not remembered while it is buried, for
// clients that may see its app.
func TestNotificationIsBuried(t *testing.T) {
	t.Parallel()
	jobs, ids := buriedJobs(t)
	api := New(&fakeTree{jobs: jobs}, Options{Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: testKeys})
	id := ids["400 BadTopic"][0]
	var n pushStatus
	ask(t, api.Socket(), "GET", "/v1/notifications/"+id, "", 404, new(Problem))
	if _, err := (Local{jobs}).List(t.Context(), Selection{}); err != nil {
		t.Fatal(err)
	}
	ask(t, api.Socket(), "GET", "/v1/notifications/"+id, "", 200, &n)
	want := pushStatus{ID: id, App: topic, Topic: topic, State: stateBuried, Put: time.Unix(1, 0).UTC(), At: time.Unix(1, 0).UTC(), Tries: 2, Tokens: 1, Buried: 1, Status: 41, Reason: "400 BadTopic"}
	if n != want {
		t.Errorf("%+v, want %+v", n, want)
	}
	if _, err := (Local{jobs}).Kick(t.Context(), Choice{IDs: []string{id}}); err != nil {
		t.Fatal(err)
	}
	ask(t, api.Socket(), "GET", "/v1/notifications/"+id, "", 404, new(Problem))
}
