package jetstream

import (
	"cmp"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"propeller/queue/queueurl"
)

const (
	// DefaultAckWait is how long a job stays reserved without a sign of life
	// from its holder, on a cluster.
	DefaultAckWait = 120 * time.Second
	// DefaultEmbeddedAckWait is the same for an embedded server. It can be
	// short: holder and server live and pause together, so it only matters how
	// soon the jobs of a killed process return.
	DefaultEmbeddedAckWait = 30 * time.Second

	defaultReplicas = 3               // on how many servers of a cluster each job is kept
	requestTimeout  = 5 * time.Second // bounds one request to the server
	lookEvery       = 30 * time.Second
)

// Options configure Open. They print as their URL, without secrets.
type Options struct {
	// URL is of an embedded server, which lives in this process, or of some servers
	// of a cluster, which tell of the others.
	queueurl.URL
	// Attach says what to do when another process owns the folder of an embedded
	// server: connect to its listen address instead of failing. It is for commands
	// that look in, not for daemons.
	Attach bool
	// AckWait is how long a job stays reserved without a sign of life from its
	// holder. It is a property of a tube's consumer in the server and holds for all
	// daemons. 0 means the default; tests of daemons that die have it shorter.
	AckWait time.Duration
	// Log gets one line per change of the connection's state, and what an
	// embedded server warns of. nil: no log.
	Log *slog.Logger
	// Still is called when an embedded server stands still and only the end of the
	// process helps. nil: that is only logged.
	Still func(error)

	// Tests have these shorter.
	timeout   time.Duration // of one request
	lookEvery time.Duration // how often the streams are compared with what they should be
}

// replicas is on how many servers each job is kept.
func (o Options) replicas() int {
	if o.Dir != "" {
		return 1 // one server has one copy
	}
	n, _ := strconv.Atoi(o.Options["replicas"])
	return cmp.Or(n, defaultReplicas)
}

// inboxPrefix is what the subjects of answers begin with.
func (o Options) inboxPrefix() string {
	return cmp.Or(o.Options["inbox_prefix"], strings.TrimSuffix(nats.InboxPrefix, ".")) + "."
}

// newInbox is the beginning of subjects that nobody else has.
func (o Options) newInbox() string { return o.inboxPrefix() + nuid.Next() + "." }

// apiPrefix is what the subjects of JetStream's own requests begin with.
func (o Options) apiPrefix() string {
	if d := o.Options["domain"]; d != "" {
		return "$JS." + d + ".API."
	}
	return "$JS.API."
}

// encrypted says whether nothing is to be said unencrypted.
func (o Options) encrypted() bool {
	return o.Scheme == "tls" || o.Options["ca"] != "" || o.Options["cert"] != "" || o.Options["tls_first"] != ""
}

// withDefaults returns o complete.
func (o Options) withDefaults() (Options, error) {
	ackWait := DefaultAckWait
	switch {
	case (o.Dir == "") == (len(o.Servers) == 0):
		return o, fmt.Errorf("jetstream: either a folder or servers must be given")
	case o.Options["listen"] != "" && !queueurl.Local(o.Options["listen"]): // a network needs a cluster's security
		return o, fmt.Errorf("jetstream: listen %q: must be an address of this machine alone", o.Options["listen"])
	case o.Dir != "":
		ackWait = DefaultEmbeddedAckWait
	}
	o.AckWait = cmp.Or(o.AckWait, ackWait)
	o.timeout = cmp.Or(o.timeout, requestTimeout)
	o.lookEvery = cmp.Or(o.lookEvery, lookEvery)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o, nil
}
