package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/apnsconn/apnstest"
)

func newSim() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apns-sim",
		Short: "run the APNs stand-in",
		Long: `apns-sim is a stand-in for Apple's push service, for clients in any language. It
checks requests as Apple documents, answers 200 or with the given faults, and
prints its counts once a second while requests arrive.

With --dir it writes ca.pem, the root to trust. With --topic too it writes
TOPIC.pem, a client certificate with its key. Neither is needed by propeller's
own server: mock.

A fault says what happens (status=503, reason=BadDeviceToken, silence, reset,
goaway, close, abort, delay=200ms, body=TEXT, nobody, streams=1) and to which
requests (rate=0.01, every=100, nth=5, token=PREFIX), separated by commas. A
device token that ends in fa17 and four digits, as fa170410, is answered with that
status, and fa170000 never:

  propeller apns-sim --rtt 50ms --fault status=503,rate=0.01 --fault goaway,every=5000`,
	}
	f := cmd.Flags()
	listen := f.String("listen", "127.0.0.1:2197", "listen `address`")
	rtt := f.Duration("rtt", 0, "`duration` of a network's round trip, before each answer")
	faults := f.StringArray("fault", nil, "`fault` to inject; may be given several times")
	seed := f.Uint64("seed", 0, "`seed` of the random choice for rate=; 0: a different one each time")
	anonymous := f.Bool("anonymous", false, "accept requests with neither certificate nor provider token")
	dir := f.String("dir", "", "`folder` to write ca.pem to")
	topics := f.StringArray("topic", nil, "`bundle id` to write a client certificate for, to --dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o := apnstest.Options{Addr: *listen, Delay: *rtt, DelayWindowUpdates: *rtt > 0, AllowAnonymous: *anonymous, Record: -1}
		script, err := simScript(*faults, *seed)
		if err != nil {
			return err
		}
		o.Script = script
		if len(*topics) > 0 && *dir == "" {
			return usageError{errors.New("--topic needs --dir, the folder for its certificate")}
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		s, err := apnstest.Start(o)
		if err != nil {
			return fmt.Errorf("--listen %q: %w", *listen, err)
		}
		defer s.Close()
		if err := writeSimCerts(s, *dir, *topics); err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "APNs stand-in at %s\n", s.URL)
		printStats(ctx, out, s)
		return nil
	}
	return cmd
}

func simScript(texts []string, seed uint64) (apnstest.Script, error) {
	if seed == 0 {
		seed = rand.Uint64()
	}
	faults := make([]apnstest.Fault, len(texts))
	for i, text := range texts {
		f, err := apnstest.ParseFault(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--fault %q: %w", text, err)}
		}
		faults[i] = f
	}
	return apnstest.First(apnstest.TokenCodes, apnstest.Faults(seed, faults...)), nil
}

func writeSimCerts(s *apnstest.Server, dir string, topics []string) error {
	if dir == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), s.CACertPEM(), 0o644); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	for _, topic := range topics {
		if topic == "" || topic != filepath.Base(topic) {
			return usageError{fmt.Errorf("--topic %q: not a bundle id", topic)}
		}
		if err := os.WriteFile(filepath.Join(dir, topic+".pem"), s.ClientCertPEM(topic), 0o600); err != nil {
			return fmt.Errorf("--topic: %w", err)
		}
	}
	return nil
}

// printStats prints a line a second when something has happened, until ctx ends.
func printStats(ctx context.Context, out io.Writer, s *apnstest.Server) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st := s.Stats()
		if st.Requests == last {
			continue
		}
		fmt.Fprintf(out, "%d/s  requests %d  connections %d  by status %v\n", st.Requests-last, st.Requests, st.Conns, st.ByStatus)
		last = st.Requests
	}
}
