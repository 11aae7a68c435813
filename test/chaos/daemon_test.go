package main

import (
	"os"
	"os/exec"
	"testing"
)

// A daemon whose queue's server stands still fails, and that is no fault of its own;
// what an earlier process has said, or one that ends well, is not that.
func TestStoodStill(t *testing.T) {
	t.Parallel()
	const before = `{"msg":"the queue's server does not stop"}` + "\n"
	for _, c := range []struct {
		shell, said string
		want        bool
	}{
		{"exit 1", `{"msg":"the queue's server does not answer, though its disk takes files"}`, true},
		{"exit 1", `{"msg":"the queue's server does not stop"}`, true},
		{"exit 1", `{"msg":"another end"}`, false},
		{"exit 0", `{"msg":"the queue's server does not stop"}`, false},
	} {
		at := &site{dir: t.TempDir()}
		var err error
		if at.history, err = os.Create(at.path("history.log")); err != nil {
			t.Fatal(err)
		}
		defer at.close()
		if err := os.WriteFile(at.path(daemonLog), []byte(before+c.said), 0o600); err != nil {
			t.Fatal(err)
		}
		d := &daemon{at: at, from: int64(len(before))}
		if d.p, err = start("sh", exec.Command("sh", "-c", c.shell), at.path("sh.log")); err != nil {
			t.Fatal(err)
		}
		if !d.p.wait(endTimeout) {
			t.Fatal("sh does not end")
		}
		if got := d.stoodStill(); got != c.want || (len(at.troubles) > 0) != c.want {
			t.Errorf("%s, %s: %v", c.shell, c.said, got)
		}
	}
}
