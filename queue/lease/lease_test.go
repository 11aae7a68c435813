package lease

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// job is what an adapter embeds a Lease in.
type job struct{ Lease[*job] }

func newJob(id uint64, o *Owner) *job {
	j := &job{}
	j.Number, j.Job, j.Owner = id, j, o
	return j
}

// rig is a table with one job in some state.
type rig struct {
	table       Table[*job]
	owner       Owner
	conn, other List[*job]
	late, tombs List[*job]
	j           *job
	added       time.Time
	returned    any // by the event
}

var states = map[string]State{"Waiting": Waiting, "Reserved": Reserved, "Settling": Settling, "Late": Late,
	"Settled": Settled, "Lost": Lost, "Tombstone": Tombstone}

// newRig brings a job into a state by events.
func newRig(t *testing.T, state string) *rig {
	t.Helper()
	r := &rig{added: time.Now()}
	r.j = newJob(7, &r.owner)
	r.table.Add(&r.j.Lease, &r.conn, r.added)
	reach := func(events ...string) {
		for _, e := range events {
			r.do(t, e)
		}
	}
	switch state {
	case "Waiting":
	case "Reserved":
		reach("HandOut")
	case "Settling":
		reach("HandOut", "Settle")
	case "Late":
		reach("HandOut", "Settle", "Postpone")
	case "Settled":
		reach("HandOut", "Settle", "End(Settled)")
	case "Lost":
		reach("HandOut", "End(Lost)")
	case "Tombstone":
		reach("HandOut", "Settle", "Entomb")
		r.j = r.tombs.first.Job
	default:
		t.Fatalf("no state %q", state)
	}
	if r.j.State() != states[state] {
		t.Fatalf("state %d, want %s", r.j.State(), state)
	}
	return r
}

// do has an event happen to the rig's job.
func (r *rig) do(t *testing.T, event string) {
	t.Helper()
	l, now := &r.j.Lease, r.added.Add(time.Second)
	r.returned = nil
	switch event {
	case "Bind":
		r.table.Bind(l, &r.other, now)
	case "HandOut":
		r.returned = r.table.HandOut(l)
	case "Unbind":
		r.table.Unbind(l)
	case "Settle":
		r.returned = r.table.Settle(l)
	case "Refused":
		r.table.Refused(l)
	case "Postpone":
		r.table.Postpone(l, &r.late)
	case "Revoke":
		r.returned = r.table.Revoke(l)
	case "Entomb":
		r.table.Entomb(l, &newJob(0, nil).Lease, &r.tombs, 10, r.added)
	case "End(Settled)":
		r.table.End(l, Settled)
	case "End(Lost)":
		r.table.End(l, Lost)
	case "Unlist":
		r.table.Unlist(l)
	case "Relist":
		r.table.Relist(l)
	default:
		t.Fatalf("no event %q", event)
	}
}

// seen is all that can be seen of the rig's job.
type seen struct {
	state           State
	on              *List[*job]
	listed, touched bool
	unbound         int
}

func (r *rig) look() seen {
	return seen{r.j.State(), r.j.On(), r.table.Find(7) == &r.j.Lease, r.j.Touched.After(r.added), r.owner.Unbound()}
}

// The table in the package's comment says what every event makes of a job in every state.
func TestTransitions(t *testing.T) {
	t.Parallel()
	columns, rows := commentTable(t)
	if len(columns) != len(states) || len(rows) != 12 {
		t.Fatalf("%d states and %d events", len(columns), len(rows))
	}
	for event, cells := range rows {
		for i, cell := range cells {
			r := newRig(t, columns[i])
			if event == "Relist" {
				r.table.Unlist(&r.j.Lease)
			}
			was := r.look()
			r.do(t, event)
			want, returns := expect(t, r, was, event, cell)
			if now := r.look(); now != want {
				t.Errorf("%s of a job that is %s: %+v, want %q: %+v", event, columns[i], now, cell, want)
			}
			if err, ok := r.returned.(error); ok && !errors.Is(err, returns.(error)) || !ok && r.returned != returns {
				t.Errorf("%s of a job that is %s returns %v, want %v", event, columns[i], r.returned, returns)
			}
		}
	}
}

// commentTable reads the table.
func commentTable(t *testing.T) (columns []string, rows map[string][]string) {
	text, err := os.ReadFile("lease.go")
	if err != nil {
		t.Fatal(err)
	}
	rows = make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		fields, ok := strings.CutPrefix(line, "//\t")
		switch cells := strings.Fields(fields); {
		case !ok:
		case columns == nil:
			columns = cells
		case len(cells) != len(columns)+1:
			t.Fatalf("%q: not %d cells", line, len(columns)+1)
		default:
			rows[cells[0]] = cells[1:]
		}
	}
	return columns, rows
}

// expect is what a cell says of a job that looked so before an event.
func expect(t *testing.T, r *rig, was seen, event, cell string) (want seen, returns any) {
	want = was
	switch event {
	case "HandOut", "Revoke":
		returns = cell != "no"
	}
	switch cell {
	case ".", "no":
	case "bound":
		want.on, want.touched = &r.other, true
	case "touched":
		want.touched = true
	case "unbound":
		want.on, want.unbound = nil, 1
	case "twice":
		returns = ErrSettled
	case "lost":
		returns = queue.ErrLost
	case "unlisted":
		want.listed = false
	case "listed":
		want.listed = true
	case "Lost*":
		want.state, want.listed = Lost, false
	case "Settled+":
		want = seen{state: Settled}
		if tomb := r.table.Find(7); tomb == nil || tomb.State() != Tombstone || tomb.On() != &r.tombs {
			t.Errorf("no tombstone: %+v", tomb)
		}
	case "Settled", "Lost":
		want = seen{state: states[cell], touched: was.touched}
	case "Late":
		want.state, want.on = Late, &r.late
	case "Reserved", "Settling":
		want.state = states[cell]
	default:
		t.Fatalf("no outcome %q", cell)
	}
	return want, returns
}

// A job that is unbound is bound again when the engine serves it once more, and counts no
// longer; whatever ends it, it counts no longer either.
func TestUnbound(t *testing.T) {
	t.Parallel()
	for _, event := range []string{"Bind", "End(Lost)", "End(Settled)", "Entomb"} {
		r := newRig(t, "Settling")
		r.do(t, "Unbind")
		r.do(t, "Unbind")
		if n := r.owner.Unbound(); n != 1 {
			t.Fatalf("%d unbound jobs, want 1", n)
		}
		r.do(t, event)
		if n := r.owner.Unbound(); n != 0 {
			t.Errorf("%d unbound jobs after %s", n, event)
		}
	}
}

// A number that is another job's by now is neither taken from it nor given back to the one
// before it.
func TestAnotherJobOfTheSameNumber(t *testing.T) {
	t.Parallel()
	r := newRig(t, "Settling")
	r.do(t, "Unlist")
	next := newJob(7, &r.owner)
	r.table.Add(&next.Lease, &r.conn, r.added)
	for _, event := range []string{"Relist", "Unlist", "Refused", "Settle", "Entomb"} {
		r.do(t, event)
		if r.table.Find(7) != &next.Lease {
			t.Errorf("after %s the number is not the other job's", event)
		}
	}
	if r.tombs.Len() != 0 || r.j.State() != Settled {
		t.Errorf("%d tombstones, state %d", r.tombs.Len(), r.j.State())
	}
}

// A refused job is found again after it was unlisted.
func TestRefusedAfterUnlist(t *testing.T) {
	t.Parallel()
	r := newRig(t, "Settling")
	r.do(t, "Unlist")
	r.do(t, "Refused")
	if r.table.Find(7) != &r.j.Lease || r.table.Settle(&r.j.Lease) != nil {
		t.Error("it is gone")
	}
}

// There are at most so many tombstones: the oldest go.
func TestTombstonesAreBounded(t *testing.T) {
	t.Parallel()
	var table Table[*job]
	var owner Owner
	var conn, tombs List[*job]
	const most, all = 10, 25
	for id := range uint64(all) {
		j := newJob(id, &owner)
		table.Add(&j.Lease, &conn, time.Now())
		table.Entomb(&j.Lease, &newJob(0, nil).Lease, &tombs, most, time.Now())
	}
	if tombs.Len() != most || table.Len() != most || conn.Len() != 0 {
		t.Fatalf("%d tombstones, %d known, %d held", tombs.Len(), table.Len(), conn.Len())
	}
	for l := range table.All() {
		if l.Number < all-most || l.State() != Tombstone {
			t.Errorf("%d is left, state %d", l.Number, l.State())
		}
	}
	for j := range tombs.All() {
		table.End(&j.Lease, Settled)
	}
	if tombs.Len() != 0 || table.Len() != 0 {
		t.Errorf("%d tombstones, %d known", tombs.Len(), table.Len())
	}
}

// Jobs are due in the order in which they were touched.
func TestDue(t *testing.T) {
	t.Parallel()
	var table Table[*job]
	var conn List[*job]
	now := time.Now()
	for id := range uint64(5) {
		table.Add(&newJob(id, new(Owner)).Lease, &conn, now.Add(time.Duration(id)*time.Second))
	}
	table.Find(1).Touch(now.Add(8 * time.Second))
	at := now.Add(10 * time.Second)
	var due []uint64
	for j := range conn.Due(at, 7*time.Second) {
		due = append(due, j.Number)
		j.Touch(at)
	}
	var order []uint64
	for j := range conn.All() {
		order = append(order, j.Number)
	}
	if want := []uint64{0, 2, 3}; !slices.Equal(due, want) {
		t.Errorf("due %v, want %v", due, want)
	}
	if want := []uint64{4, 1, 0, 2, 3}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	for j := range conn.Due(at.Add(time.Hour), 0) {
		table.End(&j.Lease, Lost)
	}
	if conn.Len() != 0 || table.Len() != 0 {
		t.Errorf("%d are left", conn.Len())
	}
}

// Await returns when the last settle call has ended, at once when there is none, and when its
// context ends.
func TestAwait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o Owner
		var mu sync.Mutex
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := o.Await(ended, &mu); err != nil {
			t.Error(err)
		}
		o.Enter()
		o.Enter()
		if err := o.Await(ended, &mu); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		returned := make(chan error, 2)
		for range cap(returned) {
			go func() { returned <- o.Await(t.Context(), &mu) }()
		}
		for left := 1; left >= 0; left-- {
			synctest.Wait()
			if len(returned) != 0 {
				t.Error("does not wait for the last call")
			}
			mu.Lock()
			o.Leave()
			mu.Unlock()
		}
		synctest.Wait()
		if len(returned) != cap(returned) || <-returned != nil || <-returned != nil {
			t.Error("waits on")
		}
	})
}
