package httpapi

import (
	"fmt"
	"html"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/supervisor"
)

// many are 450 apps that sleep, but for two in trouble, one paused, and three awake.
func many() []supervisor.AppStatus {
	apps := sleepers(450)
	apps[440].Health.State, apps[7].Health.State, apps[300].Health.State = supervisor.Broken, supervisor.Failing, supervisor.Paused
	for _, i := range []int{449, 2, 222} {
		apps[i].Asleep, apps[i].Health.State = false, supervisor.Running
	}
	return apps
}

// shownRows are the apps whose rows a page has, in their order.
func shownRows(page string) (names []string) {
	for _, row := range regexp.MustCompile(`<tr id="app-([^"]+)"`).FindAllStringSubmatch(page, -1) {
		names = append(names, row[1])
	}
	return names
}

// Of very many apps a page has some, trouble first, says how many more there are, and finds
// the others.
func TestOverviewOfManyApps(t *testing.T) {
	t.Parallel()
	tree := &fakeTree{apps: many()}
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	g := newGuest(t, api.Network()).signIn("reader-0123")
	more := func(body string) string {
		return html.UnescapeString(regexp.MustCompile(`<p id="more"[^>]*>(.*)</p>`).FindString(body))
	}
	first := g.get("/").Body.String()
	if got := shownRows(first); len(got) != maxRows || !slices.Equal(got[:6], []string{"app00007", "app00440", "app00002", "app00222", "app00449", "app00000"}) {
		t.Errorf("%d rows: %s", len(got), got)
	}
	if !strings.Contains(first, ">450 apps</span>") || shownIn(first, "trouble") != "2 apps in trouble" || !strings.Contains(more(first), ">1–200 of 450 apps") || !strings.Contains(more(first), "250 more apps") ||
		!strings.Contains(first, `<a rel="next" href="?page=2">`) || strings.Contains(first, `rel="prev"`) || strings.Contains(first, `id="filter"`) || !strings.Contains(first, `<input name="q"`) {
		t.Errorf("%s", first)
	}
	seen := make(map[string]bool)
	for n := range 3 {
		for _, name := range shownRows(g.get(fmt.Sprintf("/?page=%d", n+1)).Body.String()) {
			seen[name] = true
		}
	}
	if len(seen) != 450 {
		t.Errorf("%d apps on three pages", len(seen))
	}
	if last := g.get("/?page=99999999999999999999").Body.String(); strings.Contains(last, `rel="next"`) || !strings.Contains(last, `href="?page=2"`) || !strings.Contains(more(last), ">401–450 of") {
		t.Errorf("beyond the last page: %s", more(last))
	}
	for query, want := range map[string]string{"app0044": ">1–10 of 10 apps whose name or topic contains “app0044”.", " APP00440 ": ">1–1 of 1 app whose", `"<x>&`: `No app matches “"<x>&”.`} {
		body := g.get("/?q=" + url.QueryEscape(query)).Body.String()
		if !strings.Contains(more(body), want) || strings.Contains(body, "<x>") || !strings.Contains(body, `value="`+html.EscapeString(strings.TrimSpace(query))+`"`) || !strings.Contains(body, ">450 apps</span>") {
			t.Errorf("%q: %s", query, body)
		}
	}
	if body := g.get("/?q=app&page=2").Body.String(); !strings.Contains(body, `href="?q=app&amp;page=1"`) || !strings.Contains(body, `href="?q=app&amp;page=3"`) {
		t.Errorf("%s", more(body))
	}
	if body := newGuest(t, api.Network()).signIn("sender-0123").get("/send?app=app00449").Body.String(); strings.Contains(body, "<option") || !strings.Contains(body, `<input id="app" name="app" required spellcheck="false" maxlength="255" value="app00449">`) {
		t.Errorf("the form: %s", body)
	}
}

// As many apps as fit are all shown, as ever.
func TestOverviewOfFewApps(t *testing.T) {
	t.Parallel()
	tree := &fakeTree{apps: many()[250:]} // one broken, one paused, one awake
	tree.apps = append(tree.apps[:0:0], tree.apps[:maxRows]...)
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	body := newGuest(t, api.Network()).signIn("reader-0123").get("/").Body.String()
	if got := shownRows(body); len(got) != maxRows || !slices.Equal(got[:4], []string{"app00300", "app00440", "app00250", "app00251"}) {
		t.Errorf("%d rows: %s", len(got), got)
	}
	if strings.Contains(body, `id="more"`) || strings.Contains(body, `name="q"`) || !strings.Contains(body, `id="filter"`) {
		t.Errorf("%s", body)
	}
}

// heard is what a look tells a live overview: the rows that moved together, and single ones.
func heard(t *testing.T, l *live, out *slowViewer, now *look) (together, single []string, ok bool) {
	t.Helper()
	out.Body.Reset()
	ok = l.tell(now)
	for data := range strings.SplitSeq(out.Body.String(), "event: part\ndata: ") {
		var names []string
		for _, row := range regexp.MustCompile(`<tr>(\w+)</tr>`).FindAllStringSubmatch(data, -1) {
			names = append(names, row[1])
		}
		if strings.HasPrefix(data, "<tbody") {
			together = names
		} else {
			single = append(single, names...)
		}
	}
	return together, single, ok
}

// A live page of very many apps is told about those that it shows. Those in trouble come to
// the top at once, other rows move from time to time.
func TestLiveOfManyApps(t *testing.T) {
	t.Parallel()
	tree := newCountedTree()
	tree.apps = many()
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	page := newGuest(t, api.Network()).signIn("reader-0123").get("/").Body.String()
	events := html.UnescapeString(regexp.MustCompile(`data-events="([^"]+)"`).FindStringSubmatch(page)[1])
	out := &slowViewer{ResponseRecorder: httptest.NewRecorder(), after: func(int) {}}
	l := liveOf(t, api, events, out)
	apps := many()
	now := lookAt(1, apps...)
	if together, single, ok := heard(t, l, out, now); together != nil || !slices.Equal(single, shownRows(page)) || !ok {
		t.Errorf("at first: %s, %s, %v", together, single, ok)
	}
	next := func(change func(apps []supervisor.AppStatus), after time.Duration) ([]string, []string, bool) {
		t.Helper()
		before := now
		change(apps)
		now = lookAt(before.tick+1, slices.Clone(apps)...)
		now.at = before.at.Add(after)
		for i := range now.apps {
			now.apps[i].row = before.apps[i].row
			if before.apps[i].status.Health == now.apps[i].status.Health {
				now.apps[i].app = before.apps[i].app
			}
		}
		return heard(t, l, out, now)
	}
	if together, single, ok := next(func([]supervisor.AppStatus) {}, time.Second); together != nil || single != nil || !ok {
		t.Errorf("without a change: %s, %s, %v", together, single, ok)
	}
	wakes := func(apps []supervisor.AppStatus) {
		apps[400].Asleep, apps[400].Health.State = false, supervisor.Running
	}
	if together, single, ok := next(wakes, time.Second); together != nil || single != nil || !ok {
		t.Errorf("when an app wakes that is not shown: %s, %s, %v", together, single, ok)
	}
	breaks := func(apps []supervisor.AppStatus) { apps[410].Health.State = supervisor.Broken }
	if together, _, ok := next(breaks, time.Second); len(together) != maxRows || !slices.Equal(together[:3], []string{"app00007", "app00410", "app00440"}) || !slices.Contains(together, "app00400") || !ok {
		t.Errorf("when one breaks: %s, %v", together, ok)
	}
	falls := func(apps []supervisor.AppStatus) { apps[400].Asleep = true }
	if together, _, ok := next(falls, moveEvery-time.Second); together != nil || !ok {
		t.Errorf("soon after: %s, %v", together, ok)
	}
	if together, _, ok := next(falls, time.Second); len(together) != maxRows || slices.Contains(together, "app00400") || !ok {
		t.Errorf("after a while: %s, %v", together, ok)
	}
	few := lookAt(now.tick+1, many()[:maxRows]...)
	if _, _, ok := heard(t, l, out, few); ok || !strings.Contains(out.Body.String(), "event: reload") {
		t.Errorf("when all fit: %s", out.Body)
	}
}

// A row is drawn again when it has changed, or after a while, and once for all viewers.
func TestRowIsDrawnOnce(t *testing.T) {
	t.Parallel()
	drawn := 0
	s := &sampler{draw: func(*liveApp) string { drawn++; return fmt.Sprint(drawn) }}
	now := lookAt(1, sleepers(1)...)
	a := &now.apps[0]
	draws := func(want string) {
		t.Helper()
		if got := s.drawRow(a, now); got != want {
			t.Errorf("drawn %s times, want %s", got, want)
		}
	}
	draws("1")
	draws("1")
	a.app = new(liveApp)
	draws("2")
	now.at = now.at.Add(drawEvery - 1)
	draws("2")
	now.at = now.at.Add(1)
	draws("3")
}
