package httpapi

import (
	"slices"
	"strings"
	"testing"

	"propeller/queue"
)

// An operator's session on the page, with real beanstalkd: one job, a selection
// and a reason are kicked or deleted, and nothing else.
func TestPageBuried(t *testing.T) {
	t.Parallel()
	jobs, ids := buriedJobs(t)
	api, tree, log := newPageAPI()
	tree.jobs = jobs
	g := newGuest(t, api.Network()).signIn("admin-0123")
	const here = "/apps/" + topic + "/buried"
	left := func() int {
		t.Helper()
		l, err := Local{jobs}.List(t.Context(), Selection{})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.Jobs)
	}
	text := g.get(here).Body.String()
	for reason, ids := range ids {
		if !strings.Contains(text, `<section class="group" data-reason="`+reason+`">`) || !strings.Contains(text, `class="job" data-id="`+ids[0]+`"`) {
			t.Errorf("no %s in %s", reason, text)
		}
	}
	if strings.Contains(text, "000000000") {
		t.Error("whole device tokens")
	}
	large, topicBad, empty := ids["413 PayloadTooLarge"], ids["400 BadTopic"], ids["job: not UTF-8"]
	for _, step := range []struct {
		what, order string
		form        []string
		to          string // of the redirect
		left        int
	}{
		{"one", "kick", []string{"id", large[0], "ids", large[1]}, "kicked=1", 29},
		{"a selection", "delete", []string{"ids", large[1], "ids", topicBad[0]}, "deleted=2", 27},
		{"a reason", "kick", []string{"reason", "400 BadTopic", "ids", empty[0]}, "kicked=9", 18},
		{"another", "delete", []string{"reason", "job: not UTF-8"}, "deleted=10", 8},
	} {
		w := g.post(here+"/"+step.order, step.form...)
		if w.Code != 303 || w.Header().Get("Location") != here+"?"+step.to || left() != step.left {
			t.Errorf("%s: %d %s, %d left: %s", step.what, w.Code, w.Header().Get("Location"), left(), w.Body)
		}
		done, n, _ := strings.Cut(step.to, "=")
		if line := `msg="http: buried jobs ` + done + `" key=admin from=192.0.2.1 app=` + topic + ` topic=` + topic + " jobs=" + n; !strings.Contains(log.String(), line) {
			t.Errorf("no %s in the log: %s", line, log)
		}
		if text := g.get(here + "?" + step.to).Body.String(); !strings.Contains(text, `class="notice"`) {
			t.Errorf("%s: it is not said what was done", step.what)
		}
	}
	for _, bad := range []struct {
		form   []string
		status int
	}{{nil, 400}, {[]string{"id", "4711"}, 404}, {[]string{"reason", "none such"}, 404}, {[]string{"id", "not an id"}, 400}} {
		if w := g.post(here+"/kick", bad.form...); w.Code != bad.status || !strings.Contains(w.Body.String(), `class="fault"`) || !strings.Contains(w.Body.String(), `class="job"`) {
			t.Errorf("%v: %d %s", bad.form, w.Code, w.Body)
		}
	}
	w := g.post(here+"/delete", "ids", large[2], "ids", "4711")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "1 job deleted") || !strings.Contains(w.Body.String(), "4711") || left() != 7 {
		t.Errorf("half of it: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{here + "/" + large[3], here + "/" + large[3] + "?part"} {
		w := g.get(path)
		text := w.Body.String()
		if w.Code != 200 || !strings.Contains(text, "413 PayloadTooLarge") || !strings.Contains(text, "&#34;00000000…&#34;") || strings.Contains(text, "000000000") ||
			strings.Contains(text, "<html") == strings.HasSuffix(path, "?part") {
			t.Errorf("%s: %d %s", path, w.Code, text)
		}
	}
	if w := g.get(here + "/4711"); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	tree.err = queue.ErrUnavailable
	if w := g.get(here); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Jobs that were buried for one reason are one group, however long each of them
// was tried.
func TestGrouped(t *testing.T) {
	t.Parallel()
	var jobs []BuriedJob
	for _, reason := range []string{
		"410 Unregistered", "gave up after 24h0m3s and 17 tries: 503 ServiceUnavailable", "400 BadTopic (and 3 more of its tokens likewise)",
		"gave up after 25h0m0s and 9 tries: 503 ServiceUnavailable", "", "400 BadTopic", "gave up after 24h0m0s and 9 tries: 503 ServiceUnavailable",
		"expires before it can be tried again, after 2 tries: 503 x",
	} {
		jobs = append(jobs, BuriedJob{Reason: reason})
	}
	var got []string
	for _, g := range grouped(jobs) {
		got = append(got, g.Reason)
	}
	want := []string{"gave up: 503 ServiceUnavailable", "400 BadTopic", "410 Unregistered", "unknown", "expires before it can be tried again: 503 x"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// No whole device token is shown in a job's text, well-formed or not.
func TestReadable(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ab12", 16)
	for text, want := range map[string]string{
		`{"token":"` + long + `","title":"x"}`:               "{\n  \"token\": \"ab12ab12…\",\n  \"title\": \"x\"\n}",
		`{"tokens":["` + long + `","zzzzzzzzz\"z","short"]}`: "{\n  \"tokens\": [\n    \"ab12ab12…\",\n    \"zzzzzzzz…\",\n    \"short\"\n  ]\n}",
		`{"token":"zz zz zz zz"}`:                            "{\n  \"token\": \"zz zz zz…\"\n}",
		`{"token" : "zzzzzzzzzz"`:                            `{"token" : "zzzzzzzz…"`,
		"half of a job " + long:                              "half of a job ab12ab12…",
		`{"data":{"order":"12345678-1234"}}`:                 "{\n  \"data\": {\n    \"order\": \"12345678-1234\"\n  }\n}",
	} {
		if got := readable(text, nil); got != want {
			t.Errorf("%s\nis %s\nwant %s", text, got, want)
		}
	}
	if got := readable("", []byte("\xff no text")); got != "\uFFFD no text" {
		t.Errorf("%q", got)
	}
}
