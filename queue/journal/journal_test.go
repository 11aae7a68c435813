package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashHelper(dir)
	}
	goleak.VerifyTestMain(m)
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLog() (*slog.Logger, *lines) {
	var l lines
	return slog.New(slog.NewTextHandler(io.Writer(&l), nil)), &l
}

// openTest opens a journal that is closed with the test.
func openTest(t *testing.T, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return j
}

var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func entry(tube string, n int) Entry {
	return Entry{ID: fmt.Sprint(n), Tube: tube, Topic: "com.example." + tube, Class: "rejected", Status: 400,
		Reason: fmt.Sprintf("reason %d", n%3), Token: "0123abcd", Ref: fmt.Sprintf("order-%d", n), APNsID: "id",
		At: epoch.Add(time.Duration(n) * time.Second), Sum: Sum(fmt.Appendf(nil, "body %d", n))}
}

// list returns the ids in the journal's order.
func list(t *testing.T, j *Journal, tube string) []string {
	t.Helper()
	var ids []string
	if err := j.List(tube, func(e Entry) bool {
		ids = append(ids, e.ID)
		return true
	}); err != nil {
		t.Fatalf("list: %v", err)
	}
	return ids
}

func length(t *testing.T, j *Journal, tube string) int {
	t.Helper()
	n, err := j.Len(tube)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEntriesComeBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "here")
	j := openTest(t, dir, Options{})
	want := map[string]Entry{}
	for _, n := range []int{5, 3, 9, 1} { // not in the order of time
		e := entry("a", n)
		want[e.ID] = e
		j.Buried(e)
	}
	j.Buried(entry("b", 7))
	if got := list(t, j, "a"); !slices.Equal(got, []string{"1", "3", "5", "9"}) {
		t.Fatalf("listed %q", got)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = openTest(t, dir, Options{})
	if j.Rebuilt() > 0 || j.Dropped() != 0 {
		t.Fatalf("rebuilt %d, dropped %d", j.Rebuilt(), j.Dropped())
	}
	if a, b, none := length(t, j, "a"), length(t, j, "b"), length(t, j, "none"); a != 4 || b != 1 || none != 0 {
		t.Fatalf("%d, %d and %d entries", a, b, none)
	}
	for id, e := range want {
		if got, ok, err := j.Get("a", id); err != nil || !ok || got != e {
			t.Fatalf("got %+v, %t, %v, want %+v", got, ok, err, e)
		}
	}
	for what, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(what); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v, want %v", what, info.Mode(), err, mode)
		}
	}
}

// An id has one entry: the job was buried again, or the id is another job's.
func TestReplaceAndForget(t *testing.T) {
	t.Parallel()
	j := openTest(t, t.TempDir(), Options{})
	for n := range 5 {
		j.Buried(entry("a", n))
	}
	first, _, err := j.Get("a", "0")
	if err != nil {
		t.Fatal(err)
	}
	again := first
	again.At, again.Reason = epoch.Add(time.Hour), "another reason"
	j.Buried(again)
	if got := list(t, j, "a"); !slices.Equal(got, []string{"1", "2", "3", "4", "0"}) {
		t.Fatalf("listed %q", got)
	}
	// What is forgotten is the entry that was looked at, not its successor.
	if err := j.forget([]Entry{first}); err != nil {
		t.Fatal(err)
	}
	if e, ok, err := j.Get("a", "0"); err != nil || !ok || e.Reason != "another reason" {
		t.Fatalf("%+v, %t, %v", e, ok, err)
	}
	j.Buried(entry("a", 9)) // still in the buffer
	for _, id := range []string{"0", "9", "2", "2", "unknown"} {
		if err := j.Forget("a", id); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Forget("no such tube", "1"); err == nil {
		t.Fatal("a tube of that name cannot be")
	}
	if got := list(t, j, "a"); !slices.Equal(got, []string{"1", "3", "4"}) || length(t, j, "a") != 3 {
		t.Fatalf("listed %q", got)
	}
}

// f may use the journal and need not see the end.
func TestListCallback(t *testing.T) {
	t.Parallel()
	j := openTest(t, t.TempDir(), Options{})
	const n = 2*batchSize + 10
	for i := range n {
		j.Buried(entry("a", i))
	}
	seen := 0
	if err := j.List("a", func(e Entry) bool {
		seen++
		if err := j.Forget("a", e.ID); err != nil {
			t.Fatal(err)
		}
		return seen < batchSize+20
	}); err != nil {
		t.Fatal(err)
	}
	if left := length(t, j, "a"); seen != batchSize+20 || left != n-seen {
		t.Fatalf("%d seen, %d left", seen, left)
	}
	if err := j.List("bad tube", func(Entry) bool { return true }); err == nil {
		t.Fatal("a tube of that name cannot be")
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openTest(t, dir, Options{Limit: 10})
	for n := range 25 {
		j.Buried(entry("a", n))
	}
	if got := list(t, j, "a"); len(got) != 10 || got[0] != "15" || got[9] != "24" {
		t.Fatalf("kept %q", got)
	}
	if e, ok, _ := j.Get("a", "14"); ok {
		t.Fatalf("%+v is still known", e)
	}
	// All tubes together: the largest give way.
	j.Buried(entry("small", 1))
	for _, tube := range []string{"b", "c", "d", "e"} {
		for n := range 15 {
			j.Buried(entry(tube, n))
		}
	}
	total := length(t, j, "small")
	if total != 1 {
		t.Fatal("the small tube had to give way")
	}
	for _, tube := range []string{"a", "b", "c", "d", "e"} {
		n := length(t, j, tube)
		if n < 9 || n != len(list(t, j, tube)) {
			t.Fatalf("%d entries of %s", n, tube)
		}
		total += n
	}
	if total != totalFactor*10 {
		t.Fatalf("%d in all", total)
	}
	// A smaller limit than before takes hold with the next entries.
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openTest(t, dir, Options{Limit: 3})
	j.Buried(entry("c", 100))
	if got := list(t, j, "c"); len(got) < 2 || len(got) > 3 || got[len(got)-1] != "100" {
		t.Fatalf("kept %q", got) // 3, or 2 when this tube had to give way
	}
	if _, err := Open(t.TempDir(), Options{Limit: -1}); err == nil {
		t.Fatal("a negative limit was taken")
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 1000)
	e, err := Entry{ID: "1", Tube: "a", Reason: "x" + long, Ref: long, Token: strings.Repeat("ab", 32), Class: "a\xffb"}.bounded()
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Reason) > maxReason || len(e.Reason) < maxReason-1 || !utf8.ValidString(e.Reason) || len(e.Ref) > maxText {
		t.Fatalf("reason of %d bytes, ref of %d", len(e.Reason), len(e.Ref))
	}
	if e.Token != "abababab" || e.Class != "a�b" {
		t.Fatalf("token %q, class %q", e.Token, e.Class)
	}
	if since := time.Since(e.At); since < 0 || since > time.Minute {
		t.Fatalf("at %v", e.At)
	}
	for _, bad := range []Entry{{Tube: "a"}, {ID: "1"}, {ID: "1", Tube: "a b"}, {ID: strings.Repeat("1", maxID+1), Tube: "a"}} {
		if _, err := bad.bounded(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	j := openTest(t, t.TempDir(), Options{})
	j.Buried(Entry{Tube: "a"})
	if j.Dropped() != 1 {
		t.Fatalf("%d dropped", j.Dropped())
	}
}

// The buffer is bounded, what is too much is counted, and said once.
func TestOverflow(t *testing.T) {
	t.Parallel()
	log, said := newLog()
	j := openTest(t, t.TempDir(), Options{Log: log})
	j.work.Lock() // a disk that does not answer
	const extra = 500
	for n := range maxBuffer + batchSize + extra {
		j.Buried(entry("a", n)) // returns, or the test hangs
	}
	j.work.Unlock()
	n := length(t, j, "a")
	if n != maxBuffer || j.Dropped() != batchSize+extra {
		t.Fatalf("%d kept, %d dropped", n, j.Dropped())
	}
	if c := said.count("more jobs buried than could be written"); c != 1 {
		t.Fatalf("said %d times", c)
	}
	j.Buried(entry("a", 1<<20))
	if n := length(t, j, "a"); n != maxBuffer+1 {
		t.Fatalf("%d afterwards", n)
	}
}

// Nobody has to ask for what was buried to reach the disk.
func TestWritesByItself(t *testing.T) {
	t.Parallel()
	j := openTest(t, t.TempDir(), Options{})
	j.Buried(entry("a", 1))
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		j.work.Lock()
		n := j.st.counts.total
		j.work.Unlock()
		if n == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("never written")
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	j := openTest(t, t.TempDir(), Options{})
	const writers, each = 8, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			tube := fmt.Sprintf("tube-%d", w%4)
			for n := range each {
				j.Buried(entry(tube, w*each+n))
				if n%50 != 0 {
					continue
				}
				if err := j.List(tube, func(Entry) bool { return true }); err != nil {
					t.Error(err)
				}
				if err := j.Forget(tube, fmt.Sprint(w*each+n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for w := range 4 {
		total += length(t, j, fmt.Sprintf("tube-%d", w))
	}
	if want := writers * (each - each/50); total != want || j.Dropped() != 0 {
		t.Fatalf("%d entries, want %d; %d dropped", total, want, j.Dropped())
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openTest(t, dir, Options{})
	j.Buried(entry("a", 1))
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	j.Buried(entry("a", 2))
	if j.Dropped() != 1 {
		t.Fatalf("%d dropped", j.Dropped())
	}
	if err := j.List("a", func(Entry) bool { return true }); err == nil {
		t.Fatal("a closed journal was listed")
	}
	if got := list(t, openTest(t, dir, Options{}), "a"); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("on disk: %q", got)
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openTest(t, dir, Options{})
	j.Buried(entry("a", 1))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("%v, want ErrLocked", err)
	}
	if got := list(t, j, "a"); len(got) != 1 {
		t.Fatalf("listed %q", got)
	}
}

// What the system refuses is an error of Open, and leaves the file alone.
func TestCannotOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "below"), Options{}); err == nil {
		t.Fatal("opened below a file")
	}
	if err := os.Mkdir(filepath.Join(dir, fileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || isDamage(err) {
		t.Fatalf("opened a folder: %v", err)
	}
}

// Failing writes are said once and counted, and end when the disk has room.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	log, said := newLog()
	j := openTest(t, t.TempDir(), Options{Log: log})
	room := func(max int) { // stands for a disk with so much room; 0: enough
		j.work.Lock()
		j.st.db.MaxSize = max
		j.work.Unlock()
	}
	j.Buried(entry("a", 1))
	length(t, j, "a")
	room(1)
	const lost = 500 // more than fits in the pages that the file has
	for round := range 3 {
		for n := range lost {
			j.Buried(entry("a", 1000*(round+1)+n))
		}
		if got := list(t, j, "a"); !slices.Equal(got, []string{"1"}) { // reading goes on
			t.Fatalf("listed %d", len(got))
		}
	}
	if c := said.count("cannot be written"); c != 1 || j.Dropped() != 3*lost {
		t.Fatalf("%d dropped, said %d times", j.Dropped(), c)
	}
	room(0)
	for n := range lost {
		j.Buried(entry("a", 10_000+n))
	}
	if n := length(t, j, "a"); n != lost+1 || j.Dropped() != 3*lost || j.Rebuilt() > 0 {
		t.Fatalf("%d entries, %d dropped, rebuilt %d", n, j.Dropped(), j.Rebuilt())
	}
	if c := said.count("can be written again"); c != 1 {
		t.Fatalf("said %d times", c)
	}
}
