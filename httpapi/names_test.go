package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"propeller/queue"
	"propeller/supervisor"
)

// lanes is a tree with several apps of one topic, and notes which app a job is put for.
type lanes struct{ *touchedTree }

func newLanes() *lanes {
	t := newTouchedTree()
	for _, app := range [][2]string{{"app-bulk", topic}, {"shop", "com.example.shop"}, {"news-prod", "com.example.news"}, {"news-bulk", "com.example.news"}} {
		one := t.apps[0]
		one.Name, one.Topic, one.Tube = app[0], app[1], app[0]
		t.apps = append(t.apps, one)
	}
	return &lanes{t}
}

func (l *lanes) Put(_ context.Context, app string, _ []byte, _ time.Duration) (string, error) {
	return "8", l.touch(app)
}

func (l *lanes) PutAll(ctx context.Context, jobs []supervisor.NewJob) []queue.Stored {
	return putEach(ctx, l, jobs)
}

func (l *lanes) Pause(app, _ string) error {
	if _, err := l.App(app); err != nil {
		return err
	}
	return l.touch(app)
}

var laneKeys = []Key{ // never written to
	{Name: "all", Token: "all-012345", Role: RoleAdmin},
	{Name: "lane", Token: "lane-01234", Role: RoleAdmin, Apps: []string{"app-bulk", "news-bulk"}},
	{Name: "topic", Token: "topic-0123", Role: RoleAdmin, Topics: []string{topic, "com.example.news"}},
	{Name: "shop", Token: "shop-01234", Role: RoleAdmin, Topics: []string{"com.example.shop"}},
}

// A notification names its app, or its topic: that stands for the app of that name, or else for
// the only app of the topic. Keys for some apps work for these only.
func TestNotificationNamesItsApp(t *testing.T) {
	t.Parallel()
	tree := newLanes()
	api := New(tree, Options{Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: laneKeys})
	h := api.Network()
	const several = `topic "com.example.news": several apps have it: name one of them: `
	for _, c := range []struct {
		key, app, topic string
		status          int
		want            string // the app, or what is wrong
	}{
		{"all-012345", "app-bulk", "", 0, "app-bulk"},
		{"all-012345", "app-bulk", topic, 0, "app-bulk"},
		{"all-012345", topic, "", 0, topic},
		{"all-012345", "", topic, 0, topic},
		{"all-012345", "", "com.example.shop", 0, "shop"},
		{"all-012345", "", "com.example.news", 400, several + "news-prod, news-bulk"},
		{"all-012345", "app-bulk", "com.example.news", 400, `is not that of app "app-bulk"`},
		{"all-012345", "", "shop", 400, `topic "shop": no such app`}, // a name is no topic
		{"all-012345", "none", "", 400, `app "none": no such app`},
		{"all-012345", "com.example.shop", "", 400, `app "com.example.shop": no such app`}, // nor a topic a name
		{"all-012345", "", "", 400, "missing"},
		{"lane-01234", "app-bulk", "", 0, "app-bulk"},
		{"lane-01234", "", topic, 403, `topic "com.example.app": this key is for other apps`},
		{"lane-01234", "", "com.example.news", 400, several + "news-bulk"},
		{"lane-01234", "news-prod", "", 403, `app "news-prod": this key is for other apps`},
		{"lane-01234", "none", "", 403, `app "none": this key is for other apps`},
		{"topic-0123", "news-prod", "", 0, "news-prod"},
		{"topic-0123", "app-bulk", "", 0, "app-bulk"},
		{"topic-0123", "", topic, 0, topic},
		{"topic-0123", "", "com.example.news", 400, several + "news-prod, news-bulk"},
		{"topic-0123", "shop", "", 403, "this key is for other apps"},
		{"shop-01234", "", "com.example.shop", 0, "shop"},
		{"shop-01234", "", "com.example.news", 403, "this key is for other apps"},
	} {
		form := url.Values{"token": {goodToken}, "title": {"x"}}
		body := `{"token":"` + goodToken + `","title":"x"`
		for key, value := range map[string]string{"app": c.app, "topic": c.topic} {
			if value != "" {
				form.Set(key, value)
				body += `,"` + key + `":"` + value + `"`
			}
		}
		body += "}"
		for kind, send := range map[string][2]string{
			"one": {"/v1/notifications", body}, "list": {"/v1/notifications", "[" + body + "]"}, "lint": {"/v1/lint", body}, "form": {"/post", form.Encode()},
		} {
			r := httptest.NewRequest("POST", send[0], strings.NewReader(send[1]))
			r.Header.Set("Authorization", "Bearer "+c.key)
			if kind == "form" {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			done := strings.Join(tree.take(), " ")
			text := strings.ReplaceAll(w.Body.String(), `\"`, `"`)
			switch {
			case c.status == 0 && kind == "lint":
				if !strings.Contains(text, `"ok":true`) {
					t.Errorf("%s %+v: %s", kind, c, text)
				}
			case c.status == 0:
				if done != c.want {
					t.Errorf("%s %+v: put for %q: %d %s", kind, c, done, w.Code, text)
				}
			case done != "" || !strings.Contains(text, c.want) || (kind == "one" || kind == "form") && w.Code != c.status:
				t.Errorf("%s %+v: put for %q: %d %s", kind, c, done, w.Code, text)
			}
		}
	}
}

// A path says the app's name, or a topic that says which app is meant.
func TestPathNamesItsApp(t *testing.T) {
	t.Parallel()
	tree := newLanes()
	var log strings.Builder
	api := New(tree, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	api.Use(Settings{Keys: laneKeys})
	h := api.Network()
	for _, c := range []struct {
		key, path string
		status    int
		app       string // that was paused
	}{
		{"all-012345", topic, 200, topic},
		{"all-012345", "app-bulk", 200, "app-bulk"},
		{"all-012345", "com.example.shop", 200, "shop"},
		{"all-012345", "com.example.news", 400, ""},
		{"all-012345", "none", 404, ""},
		{"lane-01234", "app-bulk", 200, "app-bulk"},
		{"lane-01234", topic, 403, ""},
		{"lane-01234", "shop", 403, ""},
		{"lane-01234", "none", 403, ""},
		{"topic-0123", "news-prod", 200, "news-prod"},
		{"topic-0123", "com.example.news", 400, ""},
		{"topic-0123", "com.example.shop", 403, ""},
		{"shop-01234", "com.example.shop", 200, "shop"},
		{"shop-01234", "com.example.news", 403, ""},
	} {
		w := askWith(h, c.key, "POST", "/v1/apps/"+c.path+"/pause")
		if done := strings.Join(tree.take(), " "); w.Code != c.status || done != c.app {
			t.Errorf("%+v: %d %s, paused %q", c, w.Code, w.Body, done)
		}
		if c.status == 200 && !strings.Contains(w.Body.String(), `"name":"`+c.app+`"`) {
			t.Errorf("%+v: %s", c, w.Body)
		}
	}
	if line := `msg="http: app paused" key=all from=192.0.2.1 app=shop topic=com.example.shop`; !strings.Contains(log.String(), line) {
		t.Errorf("no %s in the log: %s", line, log.String())
	}
	for path, status := range map[string]int{"shop": 200, "com.example.shop": 200, "com.example.news": 400, "none": 404} {
		w := askWith(h, "", "GET", "/readyz/apps/"+path)
		if w.Code != status || strings.Contains(w.Body.String(), "news-prod") {
			t.Errorf("a stranger asks whether %s is ready: %d %s", path, w.Code, w.Body)
		}
	}
	if w := askWith(h, "topic-0123", "GET", "/v1/apps"); strings.Count(w.Body.String(), `"name":`) != 4 || strings.Contains(w.Body.String(), "shop") {
		t.Errorf("apps of two topics: %s", w.Body)
	}
	if w := askWith(h, "lane-01234", "GET", "/metrics"); w.Code != 403 {
		t.Errorf("metrics: %d", w.Code)
	}
}

// askWith makes a request with a key; "" for none.
func askWith(h http.Handler, key, method, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The page calls each app by its name, and shows its topic where that is another.
func TestPageNamesApps(t *testing.T) {
	t.Parallel()
	api := New(newLanes(), Options{})
	api.Use(Settings{Keys: laneKeys})
	g := newGuest(t, api.Network()).signIn("topic-0123")
	for path, want := range map[string][]string{
		"/":                          {`id="app-` + topic + `"`, `id="app-app-bulk"`, `href="apps/news-bulk"`, `<small class="topic">com.example.news</small>`},
		"/apps/app-bulk":             {`<h1>app-bulk <small class="topic">` + topic + `</small></h1>`, "/apps/app-bulk/pause", "/send?app=app-bulk"},
		"/apps/" + topic:             {"<h1>" + topic + "</h1>"},
		"/send?app=app-bulk":         {`<option value="app-bulk" selected>app-bulk (` + topic + ")</option>", `<option value="` + topic + `">` + topic + "</option>"},
		"/send?topic=" + topic:       {`<option value="` + topic + `" selected>`},
		"/apps/com.example.news":     {"several apps have it: name one of them: news-prod, news-bulk"},
		"/apps/shop":                 {"is for other apps"},
		"/send?topic=com.example.ap": {`<option value="` + topic + `">`},
	} {
		body := g.get(path).Body.String()
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s lacks %s:\n%s", path, text, body)
			}
		}
		if path != "/apps/shop" && strings.Contains(body, "shop") {
			t.Errorf("%s shows an app of another topic", path)
		}
	}
}
