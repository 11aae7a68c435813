package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// sampleFile returns the file of a journal with every kind of page, and all
// that was ever entered. (A broken head gives the state before the last
// transaction: an entry that was forgotten then is back.)
func sampleFile(t testing.TB) (file []byte, entries map[string]Entry) {
	t.Helper()
	dir := t.TempDir()
	j, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	entries = make(map[string]Entry)
	for n := range 400 {
		e := entry("a", n)
		entries["a/"+e.ID] = e
		j.Buried(e)
	}
	for n := range 3 { // a bucket within its page
		e := entry("b", n)
		entries["b/"+e.ID] = e
		j.Buried(e)
	}
	for n := range 40 { // free pages
		if err := j.Forget("a", fmt.Sprint(3*n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	file, err = os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return file, entries
}

// survive opens a journal on the file and uses it. Whatever the file holds,
// it must work; what it shows must have been entered.
func survive(t *testing.T, what string, file []byte, entries map[string]Entry) (rebuilt bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	log, said := newLog()
	j, err := Open(dir, Options{Log: log})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, tube := range []string{"a", "b"} {
		if err := j.List(tube, func(e Entry) bool {
			if want := entries[tube+"/"+e.ID]; e != want {
				t.Errorf("%s: listed %+v, entered was %+v", what, e, want)
			}
			return true
		}); err != nil {
			t.Errorf("%s: list: %v", what, err)
		}
	}
	for n := range 50 {
		j.Buried(entry("a", 1000+n))
	}
	for n := range 3 {
		if err := j.Forget("b", fmt.Sprint(n)); err != nil {
			t.Errorf("%s: forget: %v", what, err)
		}
	}
	if _, ok, err := j.Get("a", "1049"); !ok || err != nil {
		t.Errorf("%s: the new entry: %t, %v", what, ok, err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("%s: close: %v", what, err)
	}
	if n := said.count("begun anew"); n != j.Rebuilt() || n > 1 {
		t.Errorf("%s: rebuilt %d, said %d times", what, j.Rebuilt(), n)
	}
	again, err := Open(dir, Options{Log: log})
	if err != nil {
		t.Fatalf("%s: again: %v", what, err)
	}
	defer again.Close()
	if _, ok, err := again.Get("a", "1049"); !ok || err != nil {
		t.Errorf("%s: the new entry, opened again: %t, %v\n%s", what, ok, err, said)
	}
	return j.Rebuilt() > 0
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	file, entries := sampleFile(t)
	anew := 0
	for n := 0; n < len(file); n += len(file)/60 + 1 {
		if survive(t, fmt.Sprintf("cut to %d bytes", n), file[:n], entries) {
			anew++
		}
	}
	if anew < 20 {
		t.Errorf("begun anew %d times only", anew)
	}
	if survive(t, "whole", file, entries) {
		t.Error("a whole file was begun anew")
	}
}

// Bytes changed at random places, more of them where the structure is.
func TestFlipped(t *testing.T) {
	t.Parallel()
	file, entries := sampleFile(t)
	const seed, times = 4, 150
	r := rand.New(rand.NewPCG(seed, seed))
	anew := 0
	for i := range times {
		broken := bytes.Clone(file)
		for range 1 + r.IntN(4) {
			at := r.IntN(len(file))
			if r.IntN(3) > 0 {
				at = at/pageSize*pageSize + r.IntN(64) // header and first elements
			}
			broken[at] = byte(r.Uint32())
		}
		if survive(t, fmt.Sprintf("flip %d of seed %d", i, seed), broken, entries) {
			anew++
		}
	}
	if anew == 0 || anew == times {
		t.Errorf("begun anew %d times of %d", anew, times)
	}
}

// Pages that name themselves or each other: bbolt would follow them for ever.
func TestCyclesAndLies(t *testing.T) {
	t.Parallel()
	file, entries := sampleFile(t)
	pages := len(file) / pageSize
	var branches, frees []int
	for id := 2; id < pages; id++ {
		switch order.Uint16(file[id*pageSize+8:]) {
		case branchFlag:
			branches = append(branches, id)
		case freelistFlag:
			frees = append(frees, id)
		}
	}
	if len(branches) == 0 || len(frees) == 0 {
		t.Fatalf("branches %d, free lists %d: the sample is too small", branches, frees)
	}
	change := func(what string, f func(b []byte)) {
		broken := bytes.Clone(file)
		f(broken)
		if bytes.Equal(broken, file) {
			t.Fatalf("%s: nothing changed", what)
		}
		survive(t, what, broken, entries)
	}
	for _, id := range branches {
		at := id * pageSize
		change("branch that holds itself", func(b []byte) { order.PutUint64(b[at+headerSize+8:], uint64(id)) })
		change("branch that holds a far page", func(b []byte) { order.PutUint64(b[at+headerSize+8:], 1<<40) })
		change("empty branch", func(b []byte) { order.PutUint16(b[at+10:], 0) })
		change("branch of 65535", func(b []byte) { order.PutUint16(b[at+10:], 0xFFFF) })
		change("long branch", func(b []byte) { order.PutUint32(b[at+12:], 1<<31) })
		change("key of 4 GB", func(b []byte) { order.PutUint32(b[at+headerSize+4:], 1<<32-1) })
	}
	for _, id := range frees {
		at := id * pageSize
		change("free list of 2^50", func(b []byte) {
			order.PutUint16(b[at+10:], manyIDs)
			order.PutUint64(b[at+headerSize:], 1<<50)
		})
		change("free list with a page in use", func(b []byte) {
			order.PutUint16(b[at+10:], 1)
			order.PutUint64(b[at+headerSize:], uint64(branches[0]))
		})
	}
}

func TestOtherFiles(t *testing.T) {
	t.Parallel()
	for what, file := range map[string][]byte{
		"text":       []byte("this is no database\n"),
		"zeroes":     make([]byte, 64<<10),
		"noise":      bytes.Repeat([]byte("\xed\xda\x0c\xed"), 16<<10),
		"other bolt": boltFile(t, "somebody", "else", "x"),
		"old schema": boltFile(t, "meta", "schema", "0"),
		"no tubes":   boltFile(t, "meta", "schema", "1"),
	} {
		if !survive(t, what, file, nil) {
			t.Errorf("%s: not begun anew", what)
		}
	}
	if survive(t, "empty", nil, nil) {
		t.Error("an empty file is a new one")
	}
}

// boltFile is a database with one bucket and one value.
func boltFile(t *testing.T, bucket, key, value string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte(value))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// The file goes bad, or short, under a running journal, again and again.
func TestDamagedWhileOpen(t *testing.T) {
	t.Parallel()
	for what, harm := range map[string]func(path string) error{
		"cut": func(path string) error { return os.Truncate(path, 0) },
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			_, err = f.WriteAt(bytes.Repeat([]byte{0xA5}, int(info.Size())-2*pageSize), 2*pageSize)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, fileName)
			log, said := newLog()
			j := openTest(t, dir, Options{Log: log})
			for round := range maxRenewals {
				for n := range 300 {
					j.Buried(entry("a", n))
				}
				if n := length(t, j, "a"); n != 300 {
					t.Fatalf("%d entries", n)
				}
				if err := harm(path); err != nil {
					t.Fatal(err)
				}
				j.Buried(entry("b", round))
				if got := list(t, j, "a"); len(got) != 0 {
					t.Fatalf("listed %d", len(got))
				}
				if got := list(t, j, "b"); len(got) != 1 {
					t.Fatalf("the entry made on the way is not there: %q", got)
				}
				if j.Rebuilt() != round+1 || said.count("begun anew") != round+1 {
					t.Fatalf("rebuilt %d, said %d times", j.Rebuilt(), said.count("begun anew"))
				}
			}
			if aside, err := filepath.Glob(path + asideSuffix + "*"); err != nil || len(aside) != maxRenewals {
				t.Fatalf("kept %q, %v", aside, err) // within one second, too
			}
			// Once more: it goes on without.
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := j.List("a", func(Entry) bool { return true }); err == nil {
					t.Fatal("listed what cannot be read")
				}
				j.Buried(entry("a", 1))
			}
			if said.count("given up") == 0 {
				t.Fatal("not said")
			}
			_ = j.Close() // an error, unless the writer was there first
			if j.Dropped() != 2 {
				t.Errorf("%d dropped", j.Dropped())
			}
		})
	}
}

func TestAsideIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	for _, at := range []string{"1000000001", "1000000002", "1000000003", "1000000004"} {
		if err := os.WriteFile(path+asideSuffix+at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if j := openTest(t, dir, Options{}); j.Rebuilt() != 1 {
		t.Fatal("not begun anew")
	}
	left, err := filepath.Glob(path + asideSuffix + "*")
	if err != nil || len(left) != maxAside {
		t.Fatalf("%q, %v", left, err)
	}
	for _, old := range []string{"1000000001", "1000000002"} {
		if _, err := os.Stat(path + asideSuffix + old); err == nil {
			t.Errorf("%s was kept", old)
		}
	}
	if text, err := os.ReadFile(left[maxAside-1]); err != nil || string(text) != "damaged" {
		t.Errorf("the newest holds %q, %v", text, err)
	}
}

// The check finds nothing wrong with what bbolt makes by itself: entries come
// in any order of time, are replaced, forgotten and evicted, in many tubes.
func TestCheckFindsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	const seed, rounds, ops = 1, 12, 60
	r := rand.New(rand.NewPCG(seed, seed))
	largest := 0
	for round := range rounds {
		j, err := Open(dir, Options{Limit: 700})
		if err != nil {
			t.Fatal(err)
		}
		for range ops {
			tube := fmt.Sprintf("tube-%d", r.IntN(1+r.IntN(8)))
			id := r.IntN(2000)
			switch r.IntN(10) {
			case 0:
				err = j.Forget(tube, fmt.Sprint(id))
			case 1: // the oldest, one after the other
				var old []Entry
				err = j.List(tube, func(e Entry) bool {
					old = append(old, e)
					return len(old) < r.IntN(200)
				})
				if err == nil {
					err = j.forget(old)
				}
			default:
				for range r.IntN(30) {
					e := entry(tube, r.IntN(2000))
					e.At = epoch.Add(time.Duration(r.IntN(1e9)))
					j.Buried(e)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, len(file))
		if err := checkFile(bytes.NewReader(file), int64(len(file))); err != nil || j.Rebuilt() > 0 {
			t.Fatalf("round %d of seed %d: %v, rebuilt %d", round, seed, err, j.Rebuilt())
		}
	}
	if largest < 100*pageSize {
		t.Fatalf("%d bytes: too small to mean anything", largest)
	}
}

// FuzzCheckFile: no file makes the check itself panic or run on.
func FuzzCheckFile(f *testing.F) {
	file, _ := sampleFile(f)
	f.Add(file[:8*pageSize], 3*pageSize+8, byte(1))
	f.Add(file, 0, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, v byte) {
		b = bytes.Clone(b)
		if at >= 0 && at < len(b) {
			b[at] = v
		}
		if err := checkFile(bytes.NewReader(b), int64(len(b))); err == nil && len(b) < 4*pageSize {
			t.Errorf("a file of %d bytes is whole", len(b))
		}
	})
}
