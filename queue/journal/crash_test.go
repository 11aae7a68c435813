package journal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// crashDir tells the test binary to be a process that is killed: it writes to
// the journal in that folder until then.
const crashDir = "JOURNAL_CRASH_DIR"

// crashHelper enters jobs 0, 1, 2 … from where the journal ends. After some it
// says how many are surely on disk.
func crashHelper(dir string) {
	j, err := Open(dir, Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	n, err := j.Len("a")
	if err != nil || j.Rebuilt() > 0 {
		fmt.Println("error", err, j.Rebuilt())
		os.Exit(1)
	}
	for {
		for range 700 {
			j.Buried(entry("a", n))
			n++
		}
		if n, err = j.Len("a"); err != nil || j.Dropped() > 0 {
			fmt.Println("error", err, j.Dropped())
			os.Exit(1)
		}
		fmt.Println("safe", n)
	}
}

// A process that is killed (-9) at any moment loses what it had not written
// yet, and nothing before; the file is whole.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 6 {
		safe := killedAfter(t, dir, 3+round)
		j, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := list(t, j, "a")
		for i, id := range got {
			if id != strconv.Itoa(i) {
				t.Fatalf("place %d: job %s", i, id)
			}
		}
		if len(got) < safe || j.Rebuilt() > 0 {
			t.Fatalf("%d entries, %d were safe; rebuilt %d", len(got), safe, j.Rebuilt())
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killedAfter runs the helper until it has said so many times how much is
// safe, kills it and returns what it said last.
func killedAfter(t *testing.T, dir string, times int) (safe int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it has ended already if this fails
		_ = cmd.Wait()         // "killed" is what is wanted
	}()
	lines := bufio.NewScanner(out)
	for range times {
		if !lines.Scan() {
			t.Fatalf("the helper ended: %v", lines.Err())
		}
		number, ok := strings.CutPrefix(lines.Text(), "safe ")
		if safe, err = strconv.Atoi(number); !ok || err != nil {
			t.Fatalf("the helper said %q", lines.Text())
		}
	}
	return safe
}
