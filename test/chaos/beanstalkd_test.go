package main

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// However busy beanstalkd is, it is ended between two commands, and everything
// that it had accepted is there when it is started again.
func TestBeanstalkdEndsIdle(t *testing.T) {
	t.Parallel()
	b, err := newBeanstalkd(&site{dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.kill()
	if err := b.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
		var load sync.WaitGroup
		var puts [4]int
		begun := make(chan struct{}, len(puts))
		for i := range puts {
			load.Go(func() {
				defer func() { begun <- struct{}{} }()
				c, err := b.dial()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.close()
				for ; err == nil; puts[i]++ {
					if puts[i] == 20 {
						begun <- struct{}{}
					}
					_, err = c.put("t", fmt.Appendf(nil, "job %d of %d", puts[i], i), 0)
				}
				puts[i]-- // the last was not accepted, or nobody knows
			})
		}
		for range puts {
			<-begun
		}
		if !b.endIdle(t.Context(), sig) && runtime.GOOS == "linux" {
			t.Errorf("%v: ended at work", sig)
		}
		load.Wait()
		for _, n := range puts {
			accepted += n
		}
		if !b.p.ended() {
			t.Fatalf("%v: still runs", sig)
		}
		if err := b.start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := left(b, []string{"t"})
	n := 0
	for _, t := range all {
		n += t.ready + t.delayed + t.reserved
	}
	if rest, err := takeRest(b, "t"); err != nil || len(rest) != n {
		t.Errorf("%d of %d jobs taken out: %v", len(rest), n, err)
	}
	if err != nil || n < accepted || n > accepted+16 {
		t.Errorf("%d jobs accepted, %d found: %v %v", accepted, n, all, err)
	}
}
