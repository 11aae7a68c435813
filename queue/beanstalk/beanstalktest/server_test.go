package beanstalktest

import (
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBinlogSurvivesKill(t *testing.T) {
	t.Parallel()
	s := Start(t, WithBinlog())
	if _, err := s.Dial().Put([]byte("x"), 1, 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	addr := s.Addr()
	s.Restart()
	if s.Addr() != addr {
		t.Fatalf("moved from %s to %s", addr, s.Addr())
	}
	if _, body, err := s.Dial().Reserve(0); err != nil || string(body) != "x" {
		t.Fatalf("after restart: %q, %v", body, err)
	}
}

func TestKillFreezeDrain(t *testing.T) {
	t.Parallel()
	s := Start(t)
	c := s.Dial()
	s.Drain()
	if _, err := c.Put(nil, 1, 0, time.Minute); err == nil {
		t.Fatal("a draining server took a job")
	}
	s.Freeze()
	s.Thaw()
	if _, err := c.Stats(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if _, err := c.Stats(); err == nil {
		t.Fatal("a killed server answered")
	}
	if c, err := gobeanstalk.Dial("tcp", s.Addr()); err == nil {
		c.Close()
		t.Fatal("a killed server was reached")
	}
	s.Stop() // down already: no-op
}
