package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// overviewPage is what the overview shows.
type overviewPage struct {
	Apps         []*liveApp
	Total        totals
	Find         *picked // nil if Apps are all there are
	UnknownTubes []unknownTube
}

// totals are the numbers above all apps.
type totals struct {
	Apps, Trouble int
	Rate          *float64
}

func totalsOf(apps []shown) totals {
	t := totals{Apps: len(apps)}
	for i := range apps {
		a := &apps[i]
		if a.status.Health.State.Trouble() {
			t.Trouble++
		}
		switch {
		case a.app == nil || a.app.Rate == nil:
		case t.Rate == nil:
			t.Rate = new(*a.app.Rate)
		default:
			*t.Rate += *a.app.Rate
		}
	}
	return t
}

func (p *pages) overview(w http.ResponseWriter, r *http.Request, c *client) {
	q := r.URL.Query()
	all := p.now(c)
	found := pick(all, q.Get("q"), pageOf(q))
	d := overviewPage{Total: totalsOf(all), UnknownTubes: p.api.unknownTubes(c)}
	for i := range found.rows {
		d.Apps = append(d.Apps, p.sampler.view(found.rows[i].status))
	}
	events := url.Values{"apps": {listOf(found.names())}}
	if !found.whole {
		d.Find = found
		events = url.Values{"rows": {hashOf(found.names())}, "q": {found.Query}, "page": {strconv.Itoa(found.Page)}}
	}
	p.show(w, c, "overview", "Apps", "/events?"+events.Encode(), d)
}

// now are the apps that a client may see, with what the last look has shown of them.
func (p *pages) now(c *client) (apps []shown) {
	status, last := p.api.tree.Status(), p.sampler.latest()
	for i := range status {
		a := shown{status: &status[i]}
		if !c.may(a.status.Name, a.status.Topic) {
			continue
		}
		if last != nil {
			if known := last.find(a.status.Name); known != nil {
				a.app = known.app
			}
		}
		apps = append(apps, a)
	}
	return apps
}

// pageOf is which page of the apps is asked for; 0 if that is not said.
func pageOf(q url.Values) int {
	n, _ := strconv.Atoi(q.Get("page")) // pick takes any number
	return n
}

// listOf stands for a list of apps, in whatever order.
func listOf(names []string) string { return hashOf(slices.Sorted(slices.Values(names))) }

// hashOf stands for a list of apps in its order.
func hashOf(names []string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, " ")))
	return hex.EncodeToString(sum[:8])
}
