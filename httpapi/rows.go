package httpapi

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/supervisor"
)

const (
	// maxRows is how many apps the overview shows at most. Of more, it shows those that
	// somebody may want to look at first, and has a form to find others.
	maxRows = 200
	// drawEvery is how often a row is drawn again if nothing has changed: an expiry comes
	// nearer.
	drawEvery = time.Minute
)

// row is an app's row of the overview. It is drawn when a viewer shows it, once for all of
// them, and again when it has changed.
type row struct {
	seen atomic.Int64 // the tick at which a page last showed the app; 0 before

	mu   sync.Mutex
	of   *liveApp
	at   time.Time
	html string
}

// see notes that a page shows the app.
func (a *shown) see(now *look) { a.row.seen.Store(now.tick) }

// draw returns the app's row as of a look.
func (s *sampler) drawRow(a *shown, now *look) string {
	a.see(now)
	r := a.row
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != a.app || now.at.Sub(r.at) >= drawEvery {
		r.of, r.at, r.html = a.app, now.at, s.draw(a.app)
	}
	return r.html
}

// picked are the apps that an overview shows.
type picked struct {
	rows    []shown
	trouble int  // how many of them, the first ones, are in trouble
	whole   bool // they are all apps

	// Of an overview that does not show all apps:
	Query       string
	All, Found  int // apps, and those that the query finds
	First, Last int // of those found, what the rows are, from 1
	Page, Pages int
}

// pick picks the apps of a page, whose names or topics contain what is asked for. If all fit,
// those that do not work come first. If not, those in trouble come first, then those that are
// awake; each group as apps has them, which is by name.
func pick(apps []shown, query string, page int) *picked {
	p := &picked{Query: strings.TrimSpace(query), All: len(apps)}
	p.whole = p.Query == "" && len(apps) <= maxRows
	sought := strings.ToLower(p.Query)
	var groups [3][]*shown
	for i := range apps {
		if st := apps[i].status; p.whole || finds(st, sought) {
			n := p.group(st)
			groups[n] = append(groups[n], &apps[i])
			p.Found++
		}
	}
	p.Pages = max(1, (p.Found+maxRows-1)/maxRows)
	p.Page = min(max(1, page), p.Pages)
	from := (p.Page - 1) * maxRows
	p.Last = min(from+maxRows, p.Found)
	p.First = min(from+1, p.Last)
	for i, a := range slices.Concat(groups[:]...)[from:p.Last] {
		p.rows = append(p.rows, *a)
		if a.status.Health.State.Trouble() {
			p.trouble = i + 1
		}
	}
	return p
}

func finds(st *supervisor.AppStatus, sought string) bool {
	return strings.Contains(strings.ToLower(st.Name), sought) || strings.Contains(strings.ToLower(st.Topic), sought)
}

// group is which group of rows an app belongs to.
func (p *picked) group(st *supervisor.AppStatus) int {
	switch state := st.Health.State; {
	case state.Trouble(), p.whole && !state.Works():
		return 0
	case p.whole, !st.Asleep:
		return 1
	}
	return 2
}

// names are those of the apps, in their order.
func (p *picked) names() []string {
	out := make([]string, len(p.rows))
	for i := range p.rows {
		out[i] = p.rows[i].status.Name
	}
	return out
}

// More is how many of the apps found are on other pages.
func (p *picked) More() int { return p.Found - len(p.rows) }

// Before and After are the numbers of the pages beside this one; 0 without one.
func (p *picked) Before() int { return p.Page - 1 }

// After is the same.
func (p *picked) After() int {
	if p.Page == p.Pages {
		return 0
	}
	return p.Page + 1
}
