package apnslean

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn"
)

// BenchmarkServer is apnsconn against a stand-in in a process of its own, so
// that the processor time of each is known.
func BenchmarkServer(b *testing.B) {
	for _, streams := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			c, serverCPU := startProcess(b)
			if o := c.Push(b.Context(), note(0)); o.Class != apnsconn.Delivered {
				b.Fatal(o)
			}
			n := note(0)
			b.ResetTimer()
			server, client := serverCPU(), cpuTime()
			sendSame(b, c, n, streams, b.N)
			server, client = serverCPU()-server, cpuTime()-client
			per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(b.N) }
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
			b.ReportMetric(per(server), "µs-server/push")
			b.ReportMetric(per(client), "µs-client/push")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func sendSame(b *testing.B, c *apnsconn.Conn, n *apnsconn.Notification, atOnce, total int) {
	var sent, ended atomic.Int64
	finished := make(chan struct{})
	var done func(apnsconn.Outcome)
	done = func(o apnsconn.Outcome) {
		if o.Class != apnsconn.Delivered {
			b.Error(o)
		}
		if ended.Add(1) == int64(total) {
			close(finished)
		}
		if sent.Add(1) <= int64(total) {
			c.Send(n, done)
		}
	}
	for range min(atOnce, total) {
		if sent.Add(1) <= int64(total) {
			c.Send(n, done)
		}
	}
	<-finished
}

func startProcess(b *testing.B) (c *apnsconn.Conn, cpu func() time.Duration) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "APNSLEAN_TEST_SERVER=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close() // tells it to end
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	in := json.NewDecoder(stdout)
	var hello greeting
	if err := in.Decode(&hello); err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(hello.Cert))
	c, err = apnsconn.Dial(b.Context(), apnsconn.Config{Addr: hello.Addr, RootCAs: pool, InFlight: 1000})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c, func() (used time.Duration) {
		if _, err := io.WriteString(stdin, "\n"); err != nil {
			b.Fatal(err)
		}
		if err := in.Decode(&used); err != nil {
			b.Fatal(err)
		}
		return used
	}
}
