package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"propeller/queue/journal"
	"propeller/supervisor"
)

// Tree is what the API needs of *supervisor.Supervisor.
type Tree interface {
	Status() []supervisor.AppStatus
	// Jobs is the view of an app's buried jobs, and the tube that they are in.
	// Errors: supervisor.ErrNoApp, supervisor.ErrNoAdmin.
	Jobs(topic string) (v journal.Jobs, tube string, err error)
	// Put puts a job in an app's tube. Errors: supervisor.ErrNoApp, those of
	// queue.Queue.
	Put(ctx context.Context, topic string, body []byte, delay time.Duration) (id string, err error)
}

// Bounds of a request.
const (
	// maxBody is many times a Choice of MaxJobs ids.
	maxBody = 1 << 20
	// maxTime bounds the work on one request: 1000 jobs kicked on a queue that
	// answers within 10 ms, three commands for each.
	maxTime = time.Minute
	// maxAtOnce bounds the requests that ask the queue: each may hold a list of
	// MaxJobs jobs. Others wait.
	maxAtOnce = 4
)

// errBody: the request's body is not what it should be.
var errBody = errors.New("the body")

// handler answers the requests.
type handler struct {
	tree Tree
	turn chan struct{} // a place for each request that asks the queue
}

// NewHandler returns the API of a tree.
func NewHandler(t Tree) http.Handler {
	h := &handler{tree: t, turn: make(chan struct{}, maxAtOnce)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, struct{}{}) })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /v1/apps", h.apps)
	mux.HandleFunc("GET /v1/apps/{topic}/buried", h.buried(list))
	mux.HandleFunc("GET /v1/apps/{topic}/buried/{id...}", h.buried(show))
	mux.HandleFunc("POST /v1/apps/{topic}/buried/kick", h.buried(settle(Local.Kick)))
	mux.HandleFunc("POST /v1/apps/{topic}/buried/delete", h.buried(settle(Local.Delete)))
	mux.HandleFunc("POST /v1/apps/{topic}/jobs", h.put)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path))
	})
	return mux
}

type route struct {
	pattern string
	handle  http.HandlerFunc
}

// routes is all there is.
func (h *handler) routes() []route {
	return []route{
		{"GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, struct{}{}) }},
		{"GET /readyz", h.ready},
		{"GET /v1/apps", h.apps},
		{"GET /v1/apps/{topic}/buried", h.buried(list)},
		{"GET /v1/apps/{topic}/buried/{id...}", h.buried(show)},
		{"POST /v1/apps/{topic}/buried/kick", h.buried(settle(Local.Kick))},
		{"POST /v1/apps/{topic}/buried/delete", h.buried(settle(Local.Delete))},
	}
}

func (h *handler) apps(w http.ResponseWriter, _ *http.Request) {
	out := Apps{Apps: []App{}}
	for _, s := range h.tree.Status() {
		out.Apps = append(out.Apps, appOf(&s))
	}
	writeJSON(w, http.StatusOK, out)
}

// Readiness is the answer of GET /readyz.
type Readiness struct {
	Ready bool `json:"ready"`
	// Trouble says what is wrong, by the topics of the apps that are not ready.
	Trouble map[string]string `json:"trouble,omitempty"`
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	out := Readiness{Trouble: make(map[string]string)}
	for _, s := range h.tree.Status() {
		if why := s.Trouble(); why != "" {
			out.Trouble[s.Topic] = why
		}
	}
	status := http.StatusServiceUnavailable
	if out.Ready = len(out.Trouble) == 0; out.Ready {
		status = http.StatusOK
	}
	writeJSON(w, status, out)
}

// buried makes a handler of an operation on one app's buried jobs.
func (h *handler) buried(do func(ctx context.Context, l Local, r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), maxTime)
		defer cancel()
		answer, err := h.inTurn(ctx, func() (any, error) {
			jobs, tube, err := h.tree.Jobs(r.PathValue("topic"))
			if err != nil {
				return nil, err
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			return do(ctx, Local{jobs, tube}, r)
		})
		if err != nil {
			writeProblem(w, statusOf(err), err.Error())
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

func (h *handler) inTurn(ctx context.Context, do func() (any, error)) (any, error) {
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("too much at once: %w", ctx.Err())
	}
	defer func() { <-h.turn }()
	return do()
}

func list(ctx context.Context, l Local, r *http.Request) (any, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the query: %w", errBody, err)
	}
	limit := 0
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 {
			return nil, errLimit
		}
	}
	return l.List(ctx, q.Get("reason"), limit)
}

func show(ctx context.Context, l Local, r *http.Request) (any, error) {
	return l.Show(ctx, r.PathValue("id"))
}

// settle makes an operation of kick or delete.
func settle(do func(Local, context.Context, Choice) (Settled, error)) func(context.Context, Local, *http.Request) (any, error) {
	return func(ctx context.Context, l Local, r *http.Request) (any, error) {
		var c Choice
		in := json.NewDecoder(r.Body)
		in.DisallowUnknownFields()
		if err := in.Decode(&c); err != nil {
			return nil, fmt.Errorf("%w: is not a choice of jobs as JSON: %w", errBody, err)
		}
		if _, err := in.Token(); err != io.EOF {
			return nil, fmt.Errorf("%w: has more after the choice of jobs", errBody)
		}
		return do(l, ctx, c)
	}
}
