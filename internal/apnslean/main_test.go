package apnslean

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The benchmark's server is this test binary as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("APNSLEAN_TEST_SERVER") == "1" {
		if err := serveProcess(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// greeting is what the process says first; after each line of input it says
// how much processor time it has used.
type greeting struct{ Addr, Cert string }

func serveProcess() error {
	s, err := Start(Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(greeting{s.Addr(), string(s.CertPEM())}); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := out.Encode(cpuTime()); err != nil {
			return err
		}
	}
	return nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
