package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// A journal that was removed while nobody had it open is said to be gone, once;
// one that never was is not missed.
func TestRemovedWhileClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, said := newLog()
	for round, want := range []int{0, 0, 1, 0} {
		j, err := Open(dir, Options{Log: log})
		if err != nil {
			t.Fatal(err)
		}
		if j.Rebuilt() != want {
			t.Errorf("round %d: rebuilt %d, want %d", round, j.Rebuilt(), want)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if said.count("is gone") != 1 {
		t.Errorf("said:\n%s", said)
	}
}

// One that is removed, or replaced, while it is in use is begun anew.
func TestRemovedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	log, said := newLog()
	j := openTest(t, dir, Options{Log: log})
	check := func(want int) {
		t.Helper()
		if err := j.Check(); err != nil {
			t.Fatal(err)
		}
		if j.Rebuilt() != want || said.count("is gone") != want {
			t.Fatalf("rebuilt %d, want %d; said:\n%s", j.Rebuilt(), want, said)
		}
	}
	for round := range 2 * maxRenewals { // it is no damage of the disk's: there is no end to it
		j.Buried(entry("a", round))
		if n := length(t, j, "a"); n != 1 {
			t.Fatalf("%d entries", n)
		}
		check(round)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		check(round + 1)
		check(round + 1)
		if n := length(t, j, "a"); n != 0 {
			t.Fatalf("%d entries", n)
		}
	}
	// Another journal in its place is taken for what it is.
	other := t.TempDir()
	o, err := Open(other, Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Buried(entry("b", 1))
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, fileName), path); err != nil {
		t.Fatal(err)
	}
	check(2*maxRenewals + 1)
	if got := list(t, j, "b"); len(got) != 1 {
		t.Fatalf("%q", got)
	}
	// While it cannot be begun anew, what there was is used on.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := j.Check(); err == nil {
		t.Fatal("a folder for a journal")
	}
	if got := list(t, j, "b"); len(got) != 1 {
		t.Fatalf("%q", got)
	}
}
