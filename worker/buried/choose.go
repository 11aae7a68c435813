package buried

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// maxTexts bounds the reasons that a matcher remembers.
const maxTexts = 1000

// matcher applies a filter, but for its IDs, to very many entries, most of which have one
// of few reasons.
type matcher struct {
	Filter
	want string          // the reason in lower case
	has  map[string]bool // by reason or class: whether want is in it
}

func (f Filter) matcher() *matcher {
	return &matcher{f, strings.ToLower(f.Reason), make(map[string]bool)}
}

func (m *matcher) match(e *Entry) bool {
	switch at := e.At.Unix(); {
	case !m.Since.IsZero() && at < m.Since.Unix(), !m.Before.IsZero() && at >= m.Before.Unix():
		return false
	case m.Only != nil && !m.Only(e):
		return false
	}
	return m.want == "" || m.contains(e.Reason) || m.contains(e.Class)
}

func (m *matcher) contains(text string) bool {
	has, known := m.has[text]
	if !known {
		has = strings.Contains(strings.ToLower(text), m.want)
		if len(m.has) < maxTexts {
			m.has[text] = has
		}
	}
	return has
}

// choose returns the entries that match, up to the limit, in their order.
func (f Filter) choose(all []*Entry) (some []*Entry, more bool) {
	m := f.matcher()
	for _, e := range all {
		if !m.match(e) {
			continue
		}
		if len(some) == f.limit() {
			return some, true
		}
		some = append(some, e)
	}
	return some, false
}

// selectsAll reports whether f selects every job, up to its limit.
func (f Filter) selectsAll() bool {
	return f.Reason == "" && f.Only == nil && len(f.IDs) == 0 && f.Since.IsZero() && f.Before.IsZero()
}

func (f Filter) limit() int { return cmp.Or(f.Limit, DefaultMany) }

// oldest returns the entries of a tube that match, up to the limit, the oldest burial
// first. Of those that match it sorts no more than it must: there may be very many.
func (x *Index) oldest(tube string, f Filter) (some []*Entry, more bool) {
	m, limit := f.matcher(), f.limit()
	var last *Entry // none after it is among the chosen; nil while there are less than limit
	cut := func() {
		slices.SortFunc(some, before)
		if len(some) > limit {
			clear(some[limit:])
			some, last, more = some[:limit], some[limit-1], true
		}
	}
	for _, e := range x.unsorted(tube) {
		switch {
		case !m.match(e):
			continue
		case last != nil && before(e, last) > 0:
			continue
		}
		if some = append(some, e); len(some) >= 2*limit+100 {
			cut()
		}
	}
	cut()
	return some, more
}

// before compares entries by their burials.
func before(a, b *Entry) int {
	return cmp.Or(cmp.Compare(a.At.Unix(), b.At.Unix()), len(a.Job)-len(b.Job), cmp.Compare(a.Job, b.Job), cmp.Compare(a.ID, b.ID))
}

func (x *Index) unsorted(tube string) []*Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.shelves[tube]; s != nil {
		return slices.AppendSeq(make([]*Entry, 0, len(s.entries)), maps.Values(s.entries))
	}
	return nil
}

// all returns the entries of a tube, the oldest burial first.
func (x *Index) all(tube string) []*Entry {
	out := x.unsorted(tube)
	slices.SortFunc(out, before)
	return out
}
