package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"propeller/config"
)

// A start that reads for ever ends at once when it is told to, and without a fault.
func TestSignalWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, stops := makeSignals()
		stuck := make(chan struct{})
		defer close(stuck)
		stops <- syscall.SIGTERM
		began := time.Now()
		cfg, err := loadUnless(stops, func() (*config.Config, error) {
			<-stuck
			return new(config.Config), nil
		})
		if cfg != nil || err != nil || time.Since(began) > 0 {
			t.Errorf("%v, %v after %v", cfg, err, time.Since(began))
		}
	})
	bad := errors.New("bad")
	if _, err := loadUnless(make(chan os.Signal), func() (*config.Config, error) { return nil, bad }); err != bad {
		t.Error(err)
	}
}

// Files that take for ever to read hold neither the other reloads nor the end.
func TestSlowFilesHoldNothing(t *testing.T) {
	for _, what := range []string{"renew", "load"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(0)
			stuck := make(chan struct{})
			defer close(stuck)
			if what == "renew" {
				b.tree.renewing.Store(&stuck)
				after(2 * renewEvery)
				b.hup <- syscall.SIGHUP
				after(time.Millisecond)
				if !strings.Contains(b.log.String(), "msg=reloaded") {
					t.Errorf("no reload while a credential is read: %s", b.log.String())
				}
			} else {
				b.load = func() (*config.Config, error) {
					<-stuck
					return nil, errors.New("too late")
				}
				b.hup <- syscall.SIGHUP
				after(time.Millisecond)
			}
			began := time.Now()
			b.stops <- syscall.SIGTERM
			if err := <-b.result; err != nil || time.Since(began) > time.Second {
				t.Errorf("%s: %v after %v", what, err, time.Since(began))
			}
		})
	}
}
