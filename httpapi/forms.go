package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of the forms that are read before it is known whose they are: a key may
// be in the form itself.
const (
	// maxForms bounds how many are read at once, on all connections together: with
	// maxForm bytes of each some 140 kB (measured), 70 MB in all.
	maxForms = 512
	// maxFormsFrom is the share of one address.
	maxFormsFrom = maxForms / 4
	// maxSignIn bounds the form to sign in, in bytes: a key has 1024 at most, of
	// which each may be written as three, and a path of the page is beside it.
	maxSignIn = 8 << 10
)

// errForms: the places were needed for others.
var errForms = errors.New("too many forms at once")

// forms are the places of forms that nobody has answered for yet. A form arrives
// in one piece; who sends one slowly has to go when there are more than places.
type forms struct {
	mu  sync.Mutex
	all []*reading // the oldest first
}

// reading is a form that is being read.
type reading struct {
	from    string // an address, as network has it
	stop    func() // ends the reading; called only while the form is in all
	dropped bool   // another has its place
}

// read reads the form of a request by parse.
func (f *forms) read(w http.ResponseWriter, r *http.Request, from string, parse func(*http.Request) error) error {
	control := http.NewResponseController(w)
	one := &reading{from: from, stop: func() {
		_ = control.SetReadDeadline(time.Unix(1, 0)) // where there is none, in tests, nobody is slow
	}}
	f.enter(one)
	err := parse(r)
	if f.leave(one) {
		return errForms
	}
	return err
}

// enter takes a place: a free one, or that of the oldest form, of the same
// address if that has its share.
func (f *forms) enter(one *reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := func(other *reading) bool { return other.from == one.from }
	n := 0
	for _, other := range f.all {
		if same(other) {
			n++
		}
	}
	switch {
	case n >= maxFormsFrom:
		f.drop(slices.IndexFunc(f.all, same))
	case len(f.all) >= maxForms:
		f.drop(0)
	}
	f.all = append(f.all, one)
}

func (f *forms) drop(i int) {
	f.all[i].dropped = true
	f.all[i].stop()
	f.all = slices.Delete(f.all, i, i+1)
}

// leave gives the place back, and says whether another had it already.
func (f *forms) leave(one *reading) (dropped bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.all, one); i >= 0 {
		f.all = slices.Delete(f.all, i, i+1)
	}
	return one.dropped
}
