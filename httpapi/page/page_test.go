package page

import (
	"strings"
	"testing"
	"time"
)

func TestPerSecond(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64]string{0: "0", 0.5: "0.5", 99.94: "99.9", 100: "100", 12345.6: "12,346"} {
		if got := perSecond(&rate); got != want {
			t.Errorf("%v: %s", rate, got)
		}
	}
	if got := perSecond(nil); got != "–" {
		t.Errorf("unknown: %s", got)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	for ago, want := range map[time.Duration]string{0: "01:46:40 UTC", 19 * time.Hour: "06:46:40 UTC", 24 * time.Hour: "Sep 8 01:46 UTC"} {
		if got := moment(now.Add(-ago), now); got != want {
			t.Errorf("%v ago: %s", ago, got)
		}
	}
	if got := future(now.Add(time.Second), now); got != "2001-09-09 01:46:41 UTC" {
		t.Errorf("a second to come: %q", got)
	}
	for _, past := range []time.Time{{}, now, now.Add(-time.Hour)} {
		if got := future(past, now); got != "" {
			t.Errorf("%v has passed: %q", past, got)
		}
	}
}

// A chart begins at the right, is scaled to its highest point, and is no line where
// nothing was sent.
func TestChart(t *testing.T) {
	t.Parallel()
	for _, none := range [][]float64{nil, {0, 0}} {
		if c := newChart(none); c != nil {
			t.Errorf("%v: %+v", none, c)
		}
	}
	if c := newChart([]float64{0, 10, 20}); c.Top != "20.0" || c.Points != "116,26 116,23.0 117,23.0 118,12.0 119,1.0 121,1.0 121,26" {
		t.Errorf("%+v", c)
	}
	if c := newChart([]float64{0.5}); c.Top != "1.0" || !strings.Contains(c.Points, "119,12.0") {
		t.Errorf("%+v", c)
	}
	if c := newChart(make([]float64, ChartPoints)); c != nil {
		t.Errorf("%+v", c)
	}
	full := append(make([]float64, ChartPoints-1), 1000)
	if c := newChart(full); c.Top != "1000" || !strings.HasPrefix(c.Points, "-1,26 -1,23.0 0,23.0 ") {
		t.Errorf("%+v", c)
	}
}

// A row of the apps has a cell for each column, which says on a phone what it is.
func TestColumns(t *testing.T) {
	t.Parallel()
	text, err := files.ReadFile("overview.html")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), `<table class="apps"`)
	head, _, _ := strings.Cut(table, "</thead>")
	_, row, _ := strings.Cut(string(text), `{{define "row"}}`)
	row, _, _ = strings.Cut(row, "</tr>")
	columns, cells := strings.Count(head, "<th "), strings.Count(row, "<td ")
	if columns < 5 || columns != cells+1 || cells != strings.Count(row, " data-label=") {
		t.Errorf("%d columns, %d cells besides the app, %d of them with a label", columns, cells, strings.Count(row, " data-label="))
	}
}
