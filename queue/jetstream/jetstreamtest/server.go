package jetstreamtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// serverVariable makes this binary a server with the configuration that it
	// names.
	serverVariable = "PROPELLER_TEST_NATS"
	readyWord      = "ready\n"
)

// Main is the program of a server. It returns false at once where this process
// is not to be one, and else when the process that started it has gone.
func Main() bool {
	file := os.Getenv(serverVariable)
	if file == "" {
		return false
	}
	o, err := server.ProcessConfigFile(file)
	if err == nil {
		o.NoSigs, o.NoLog = true, true
		var s *server.Server
		if s, err = server.NewServer(o); err == nil {
			s.Start()
			if s.ReadyForConnections(30*time.Second) && s.JetStreamEnabled() {
				fmt.Print(readyWord)
				_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the process that holds the other end
				return true
			}
			err = errors.New("not ready")
		}
	}
	fmt.Fprintln(os.Stderr, "jetstreamtest: server:", err)
	return true
}
