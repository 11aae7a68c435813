package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
	"propeller/supervisor"
)

// send makes a request with a key, from another machine.
func send(h http.Handler, token, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const ndjson = "application/x-ndjson"

func notification(more string) string {
	return fmt.Sprintf(`{"topic":%q,"token":%q,"title":"x"%s}`, topic, goodToken, more)
}

func newKeyed(tree appTree) http.Handler {
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys, BasePath: "/base"})
	return api.Network()
}

// One notification: the job that it leaves, or the key at fault.
func TestNotification(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	h := newKeyed(tree)
	w := send(h, "sender-0123", "POST", "/v1/notifications", notification(`,"delay":"90","badge":"3"`))
	if want := `{"token":"` + goodToken + `","title":"x","badge":"3"} 1m30s`; w.Code != 202 || len(tree.jobs) != 1 || tree.jobs[0] != want ||
		strings.TrimSpace(w.Body.String()) != `{"id":"job1"}` || w.Header().Get("Location") != "/base/v1/notifications/job1" {
		t.Fatalf("%d %s %v %q", w.Code, w.Body, w.Header(), tree.jobs)
	}
	for body, want := range map[string]struct {
		status int
		key    string
	}{
		``:     {400, ""},
		`{`:    {400, ""},
		`"x"`:  {400, ""},
		`[]`:   {400, ""},
		`[1`:   {400, ""},
		`null`: {400, ""},
		`{"token":"` + goodToken + `","title":"x"}`:                                   {400, "topic"},
		notification(`,"topic":"y"`):                                                  {400, "topic"},
		notification(`,"badge":-1`):                                                   {400, "badge"},
		notification(`,"delay":-1`):                                                   {400, "delay"},
		notification(`,"at":"soon"`):                                                  {400, "at"},
		notification(`,"again":{}`):                                                   {400, "again"},
		notification(`,"colour":1`):                                                   {400, "colour"},
		strings.Replace(notification(""), topic, "com.example.none", 1):               {400, "topic"},
		strings.Replace(notification(""), goodToken, "xyz", 1):                        {400, "token"},
		"[" + strings.Repeat(notification("")+",", maxItems) + notification("") + "]": {413, ""},
		strings.Repeat(" ", largeBody+1):                                              {413, ""},
	} {
		w := send(h, "sender-0123", "POST", "/v1/notifications", body)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != want.status || p.Status != want.status || p.Key != want.key || p.Detail == "" {
			t.Errorf("%.100s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := send(h, "other-0123", "POST", "/v1/notifications", notification("")); w.Code != 403 {
		t.Errorf("a key for another app: %d %s", w.Code, w.Body)
	}
	if len(tree.jobs) != 1 {
		t.Errorf("put %q", tree.jobs)
	}
	tree.err = queue.ErrUnavailable
	if w := send(h, "sender-0123", "POST", "/v1/notifications", notification("")); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	tree.err = fmt.Errorf("x: %w", queue.ErrFull)
	if w := send(h, "sender-0123", "POST", "/v1/notifications", notification("")); w.Code != 507 || !strings.Contains(w.Body.String(), "full") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A list has one result for each, in its order, whatever became of the others.
func TestNotificationList(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	h := newKeyed(tree)
	var items []string
	for i := range 300 {
		more := fmt.Sprintf(`,"ref":"%d"`, i)
		if i%3 == 1 {
			more = `,"badge":"many"`
		}
		items = append(items, notification(more))
	}
	w := send(h, "sender-0123", "POST", "/v1/notifications", " [\n"+strings.Join(items, ",")+"]")
	var got resultList
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 202 || got.Accepted != 200 || got.Refused != 100 || len(got.Results) != 300 {
		t.Fatalf("%d %v %+v", w.Code, err, got)
	}
	for i, r := range got.Results {
		if i%3 == 1 {
			if r.ID != "" || r.Error == nil || r.Error.Key != "badge" || r.Error.Status != 400 {
				t.Errorf("%d: %+v", i, r)
			}
			continue
		}
		var n int
		if _, err := fmt.Sscanf(r.ID, "job%d", &n); err != nil || !strings.Contains(tree.jobs[n-1], fmt.Sprintf(`"ref":"%d"`, i)) {
			t.Errorf("%d: %+v", i, r)
		}
	}
}

// Tokens of any length are split into jobs; what of them is none is named.
func TestNotificationTokens(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	h := newKeyed(tree)
	var tokens []string
	for i := range 3000 {
		tokens = append(tokens, fmt.Sprintf("%064x", i))
	}
	tokens = append(tokens, "nonsense")
	list, _ := json.Marshal(tokens)
	body := fmt.Sprintf(`{"topic":%q,"tokens":%s,"title":"x"}`, topic, list)
	w := send(h, "sender-0123", "POST", "/v1/notifications", body)
	var r result
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != 202 || r.ID != "job1" || len(r.IDs) != 4 || len(r.Malformed) != 1 || r.Malformed[0].Key != "tokens[3000]" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	put := make(map[string]int)
	for _, quoted := range strings.Split(strings.Join(tree.jobs, " "), `"`) {
		put[quoted]++
	}
	for _, token := range tokens {
		if n := put[token]; n != 1 {
			t.Fatalf("%s is put %d times", token, n)
		}
	}
	var l lintResult
	w = send(newKeyed(&fakeTree{apps: []supervisor.AppStatus{fullApp()}}), "sender-0123", "POST", "/v1/lint", body)
	if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || l.Jobs != 4 || l.Pushes != 3000 || len(l.Malformed) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A key's limit is that of its notifications, in whatever form they come.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		api := New(new(putTree), Options{})
		api.Use(Settings{Keys: []Key{{Name: "slow", Token: "slow-0123", Role: RoleSend, Rate: 1}}})
		h := api.Network()
		list := "[" + strings.Repeat(notification("")+",", 599) + notification("") + "]"
		for _, want := range []int{202, 429} {
			if w := send(h, "slow-0123", "POST", "/v1/notifications", list); w.Code != want {
				t.Errorf("%d %.200s, want %d", w.Code, w.Body, want)
			}
		}
	})
}

// A notification of several jobs counts as those; what one of a stream has used beyond
// its limit is missing afterwards.
func TestRateOfManyTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		tree := new(putTree)
		api := New(tree, Options{})
		api.Use(Settings{Keys: []Key{{Name: "slow", Token: "slow-0123", Role: RoleSend, Rate: 1}}})
		limit := api.access.Load().find("slow-0123").limit
		var tokens []string
		for i := range 3000 {
			tokens = append(tokens, fmt.Sprintf("%064x", i))
		}
		body := `{"topic":"` + topic + `","title":"x","tokens":["` + strings.Join(tokens, `","`) + `"]}`
		for _, of := range []struct {
			kind, body string
			left       int
		}{{"application/json", body, 4}, {"application/json", "[" + body + "]", 4}, {ndjson, body + "\n", 1}} {
			limit.ReserveN(time.Now(), int(limit.Tokens())-of.left)
			tree.jobs = nil
			if w := send(api.Network(), "slow-0123", "POST", "/v1/notifications", of.body, "Content-Type", of.kind); w.Code != 202 || len(tree.jobs) < 4 {
				t.Fatalf("%d %.200s, %d jobs", w.Code, w.Body, len(tree.jobs))
			}
			if left := limit.Tokens(); left > float64(of.left)-3 {
				t.Errorf("%d jobs were put, %v are left", len(tree.jobs), left)
			}
			limit.ReserveN(time.Now(), -maxItems)
		}
	})
}

// The first answer is repeated for the same key and body.
func TestIdempotency(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	h := newKeyed(tree)
	ask := func(token, key, body string) (*httptest.ResponseRecorder, bool) {
		w := send(h, token, "POST", "/v1/notifications", body, "Idempotency-Key", key)
		return w, w.Header().Get("Idempotency-Replayed") != ""
	}
	first, replayed := ask("sender-0123", "k", notification(""))
	if first.Code != 202 || replayed {
		t.Fatal(first.Code)
	}
	again, replayed := ask("sender-0123", "k", notification(""))
	if again.Code != 202 || !replayed || again.Body.String() != first.Body.String() || again.Header().Get("Location") != first.Header().Get("Location") {
		t.Errorf("%d %s", again.Code, again.Body)
	}
	if w, _ := ask("sender-0123", "k", notification(`,"ref":"y"`)); w.Code != 422 {
		t.Errorf("another body: %d", w.Code)
	}
	if w, replayed := ask("admin-0123", "k", notification("")); w.Code != 202 || replayed {
		t.Errorf("another client: %d", w.Code)
	}
	if w, _ := ask("sender-0123", strings.Repeat("k", maxKeyLen+1), notification("")); w.Code != 400 {
		t.Errorf("a long key: %d", w.Code)
	}
	if w := send(h, "sender-0123", "POST", "/v1/notifications", notification(""), "Idempotency-Key", "s", "Content-Type", ndjson); w.Code != 400 {
		t.Errorf("a stream: %d", w.Code)
	}
	if len(tree.jobs) != 2 {
		t.Errorf("put %q", tree.jobs)
	}
	tree.err = queue.ErrUnavailable
	if w, _ := ask("sender-0123", "later", notification("")); w.Code != 503 {
		t.Errorf("%d", w.Code)
	}
	tree.err = nil
	if w, replayed := ask("sender-0123", "later", notification("")); w.Code != 202 || replayed {
		t.Errorf("after the queue is back: %d", w.Code)
	}
}

// Answers leave after a day, and the oldest when there are too many.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k answers
		sum := [32]byte{1}
		take := func(key string) found {
			e, f := k.begin("c", key, sum, time.Now())
			if f == answerNew {
				k.finish(e, answer{body: make([]byte, 1000)}, true)
			}
			return f
		}
		if take("a") != answerNew || take("a") != answerKept {
			t.Error("not kept")
		}
		time.Sleep(keepFor - time.Second)
		if take("a") != answerKept {
			t.Error("left too early")
		}
		time.Sleep(2 * time.Second)
		if take("a") != answerNew {
			t.Error("kept for more than a day")
		}
		for i := range 2 * maxKept {
			take(fmt.Sprint(i))
		}
		if n := k.shelves["c"].order.Len(); n > maxKept || k.bytes > maxKeptBytes || len(k.shelves["c"].byKey) != n {
			t.Errorf("%d answers, %d bytes", n, k.bytes)
		}
		if take(fmt.Sprint(2*maxKept-1)) != answerKept || take("0") != answerNew {
			t.Error("not the oldest have left")
		}
		pending, _ := k.begin("c", "p", sum, time.Now())
		if _, f := k.begin("c", "p", sum, time.Now()); f != answerPending {
			t.Errorf("%v", f)
		}
		k.finish(pending, answer{}, false)
		if _, f := k.begin("c", "p", sum, time.Now()); f != answerNew {
			t.Errorf("%v", f)
		}
	})
}

// serveKeyed serves the API on a real port.
func serveKeyed(t *testing.T, tree appTree) (url string, client *http.Client) {
	t.Helper()
	return "http://" + serveWeb(t, Web{Listen: "127.0.0.1:0"}, newKeyed(tree)), newClient(t)
}

// A stream is answered line by line while it comes.
func TestStream(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	url, client := serveKeyed(t, tree)
	in, out := io.Pipe()
	req, err := http.NewRequest("POST", url+"/v1/notifications", in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sender-0123")
	req.Header.Set("Content-Type", ndjson+"; charset=utf-8")
	var resp *http.Response
	var answered *bufio.Reader
	line := func(text string) (r result) {
		t.Helper()
		if _, err := io.WriteString(out, text); err != nil {
			t.Fatal(err)
		}
		if resp == nil {
			t.Fatal("no answer yet")
		}
		got, err := answered.ReadBytes('\n')
		if err != nil || json.Unmarshal(got, &r) != nil {
			t.Fatalf("%s, %v", got, err)
		}
		return r
	}
	if resp, err = client.Do(req); err != nil { // answered before the first line
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answered = bufio.NewReader(resp.Body)
	if resp.StatusCode != 202 || resp.Header.Get("Content-Type") != ndjson {
		t.Errorf("%+v", resp)
	}
	if r := line("\n  \n" + notification("") + "\n"); r.ID != "job1" {
		t.Errorf("%+v", r)
	}
	if r := line("{not json\r\n"); r.Error == nil || r.Error.Status != 400 {
		t.Errorf("%+v", r)
	}
	if r := line(notification(`,"badge":"x"`) + "\n"); r.Error == nil || r.Error.Key != "badge" {
		t.Errorf("%+v", r)
	}
	if r := line(strings.Replace(notification(""), `"title"`, strings.Repeat(" ", 3*smallBody)+`"title"`, 1) + "\n"); r.ID != "job2" {
		t.Errorf("a long line: %+v", r)
	}
	if _, err := io.WriteString(out, notification("")); err != nil { // without an end
		t.Fatal(err)
	}
	out.Close()
	rest, err := io.ReadAll(answered)
	if err != nil || string(rest) != `{"id":"job3"}`+"\n" {
		t.Errorf("%s %v", rest, err)
	}
}

// A client that reads nothing before it has sent all, as most do, gets all
// answers in order.
func TestStreamWithoutReading(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	url, client := serveKeyed(t, tree)
	const n = 20000
	var body strings.Builder
	for i := range n {
		body.WriteString(notification(fmt.Sprintf(`,"ref":"%d"`, i)) + "\n")
	}
	req, err := http.NewRequest("POST", url+"/v1/notifications", strings.NewReader(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sender-0123")
	req.Header.Set("Content-Type", ndjson)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	i := 0
	for ; in.Scan(); i++ {
		var r result
		var job int
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		_, err := fmt.Sscanf(r.ID, "job%d", &job)
		tree.mu.Lock()
		same := err == nil && strings.Contains(tree.jobs[job-1], fmt.Sprintf(`"ref":"%d"`, i))
		tree.mu.Unlock()
		if !same {
			t.Fatalf("%d: %s", i, in.Bytes())
		}
	}
	if i != n || in.Err() != nil {
		t.Errorf("%d answers, %v", i, in.Err())
	}
}

// slowTree takes what it is given when it is told to.
type slowTree struct {
	putTree
	take chan struct{}
}

func (s *slowTree) Put(ctx context.Context, name string, body []byte, delay time.Duration) (string, error) {
	select {
	case <-s.take:
		return s.putTree.Put(ctx, name, body, delay)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// While the queue takes nothing no more of a stream is read than a few batches:
// its client feels it.
func TestStreamBackPressure(t *testing.T) {
	t.Parallel()
	tree := &slowTree{take: make(chan struct{})}
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, newKeyed(tree))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sender-0123\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", ndjson, 1<<40)
	line := strings.Repeat(notification("")+"\n", 100)
	sent := 0
	for {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := io.WriteString(conn, line)
		sent += n
		if err != nil {
			break
		}
		if sent > 256<<20 {
			t.Fatal("the stream is read though nothing is taken")
		}
	}
	close(tree.take)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	for range 3 {
		if text, err := in.ReadString('\n'); err != nil {
			t.Fatal(text, err)
		}
	}
}

// One stream too many of a key is told so, not those of others; one whose client
// goes ends.
func TestStreamsAtOnce(t *testing.T) {
	t.Parallel()
	url, client := serveKeyed(t, new(putTree))
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = -1
	open := func(ctx context.Context, token string) int {
		in, out := io.Pipe()
		context.AfterFunc(ctx, func() { out.CloseWithError(errors.New("gone")) })
		req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/notifications", in)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", ndjson)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { resp.Body.Close() })
		return resp.StatusCode
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range lastBudget / 4 / streamCost {
		if status := open(ctx, "sender-0123"); status != 202 {
			t.Fatal(status)
		}
	}
	later, end := context.WithCancel(t.Context())
	defer end()
	if status := open(later, "sender-0123"); status != 503 {
		t.Errorf("one too many: %d", status)
	}
	if status := open(later, "admin-0123"); status != 202 {
		t.Errorf("another key's: %d", status)
	}
	cancel()
	waitFor(t, func() bool { return open(later, "sender-0123") == 202 })
}

func TestLint(t *testing.T) {
	t.Parallel()
	tree := &fakeTree{}
	tree.apps = append(tree.apps, fullApp())
	h := newKeyed(tree)
	lint := func(body string) (l lintResult) {
		t.Helper()
		w := send(h, "sender-0123", "POST", "/v1/lint", body)
		if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return l
	}
	l := lint(notification(`,"badge":3,"priority":5,"expiration":0,"delay":7,"collapse_id":"c"`))
	if !l.OK || l.Jobs != 1 || l.Pushes != 1 || l.Delay != 7 || string(l.Payload) != `{"aps":{"alert":{"title":"x"},"badge":3}}` || l.PayloadBytes != len(l.Payload) ||
		fmt.Sprint(l.Headers) != "map[apns-collapse-id:c apns-expiration:0 apns-priority:5 apns-push-type:alert apns-topic:"+topic+"]" {
		t.Errorf("%+v", l)
	}
	if l := lint(notification(`,"collapse_id":"` + strings.Repeat("c", 65) + `"`)); l.OK || l.Error == nil || l.Error.Key != "collapse_id" {
		t.Errorf("%+v", l.Error)
	}
	if l := lint(strings.Replace(notification(""), topic, "com.example.none", 1)); l.OK || l.Error.Key != "topic" {
		t.Errorf("%+v", l.Error)
	}
}

// Whatever is sent, the answer is one of those that are documented, and what is
// put is a job of an app that the client may send to.
func FuzzNotifications(f *testing.F) {
	f.Add(notification(`,"delay":3`), false)
	f.Add("["+notification("")+",{}]", false)
	f.Add(notification("")+"\n{}\n\n"+notification(`,"at":0`), true)
	tree := new(putTree)
	h := newKeyed(tree)
	f.Fuzz(func(t *testing.T, body string, stream bool) {
		tree.jobs = nil
		kind := "application/json"
		if stream {
			kind = ndjson
		}
		w := send(h, "sender-0123", "POST", "/v1/notifications", body, "Content-Type", kind)
		if w.Code != 202 && w.Code != 400 && w.Code != 413 || w.Code != 202 && len(tree.jobs) > 0 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		ids := strings.Count(w.Body.String(), `"id":`)
		if ids != len(tree.jobs) {
			t.Fatalf("%d ids, put %q", ids, tree.jobs)
		}
	})
}
