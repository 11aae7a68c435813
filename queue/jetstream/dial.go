package jetstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"propeller/internal/files"
	"propeller/internal/keysize"
	"propeller/internal/neterr"
)

// dialer makes the connections of nats.go. It does the TLS too, which nats.go would
// do above what the dialer returns, so that the wire sees what the server says and
// not what it looks like encrypted. A server says first, unencrypted, whether it
// wants TLS: that line is read here, and once more by nats.go.
type dialer struct {
	q    *client
	name atomic.Value // string: of the last server that was reached by a name
}

// SkipTLSHandshake tells nats.go that it is done.
func (d *dialer) SkipTLSHandshake() bool { return true }

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	nc, err := d.dial(network, address)
	if err != nil {
		d.q.link.dials.fail(address, err)
		return nil, &dialError{err}
	}
	d.q.link.dials.reach(address)
	return nc, nil
}

// dial ends with the queue.
func (d *dialer) dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.q.ctx, dialTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	nc, err := dialName(ctx, network, host, port)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // long past
	w, err := d.greet(ctx, nc, d.serverName(host))
	if !stop() && err == nil {
		err = context.Cause(ctx) // nc is of no use with that deadline
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return w, nil
}

// dialName tries the addresses of a name.
func dialName(ctx context.Context, network, host, port string) (nc net.Conn, err error) {
	addrs, lookup := net.DefaultResolver.LookupHost(ctx, host)
	if lookup != nil {
		addrs = []string{host} // the dial says why
	}
	return dialAny(ctx, network, addrs, port)
}

// dialAny tries addresses in random order, so that the clients of a cluster behind one name
// are spread over it. If none answers, the error is always that of the same one.
func dialAny(ctx context.Context, network string, addrs []string, port string) (nc net.Conn, err error) {
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	least := slices.Min(addrs)
	for i, addr := range addrs {
		once, cancel := context.WithTimeout(ctx, dialTimeout/time.Duration(len(addrs)-i))
		nc, why := new(net.Dialer).DialContext(once, network, net.JoinHostPort(addr, port))
		cancel()
		if why == nil {
			return nc, nil
		}
		if err == nil || addr == least {
			err = why
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// serverName is whose certificate the server must have. The servers of a cluster
// are made known by their addresses: they have that of the one that told of them.
func (d *dialer) serverName(host string) string {
	if net.ParseIP(host) == nil {
		d.name.Store(host)
		return host
	}
	for _, addr := range d.q.opts.Servers {
		if given, _, _ := net.SplitHostPort(addr); given == host {
			return host
		}
	}
	if name, ok := d.name.Load().(string); ok {
		return name
	}
	return host
}

// greet reads the server's first line, and encrypts the connection where one of
// both wants that: before that line if the URL says so.
func (d *dialer) greet(ctx context.Context, nc net.Conn, name string) (*wire, error) {
	o := d.q.opts
	first := o.Options["tls_first"] != ""
	if first {
		var err error
		if nc, err = o.encrypt(ctx, nc, name); err != nil {
			return nil, err
		}
	}
	in := bufio.NewReaderSize(nc, maxControl)
	line, err := greeting(ctx, nc, in)
	if err != nil && o.encrypted() && !first && (errors.Is(err, io.EOF) || errors.Is(err, errNoGreeting)) {
		return nil, fmt.Errorf("%w: if it expects TLS from the first byte, give ?tls_first=true", err)
	}
	if err != nil {
		return nil, err
	}
	var info struct {
		Required  bool `json:"tls_required"`
		Available bool `json:"tls_available"`
	}
	if err := json.Unmarshal(line[len(infoWord)-1:], &info); err != nil {
		return nil, fmt.Errorf("server broke the protocol: INFO: %w", err)
	}
	early, _ := in.Peek(in.Buffered())
	if first || !info.Required && (!o.encrypted() || !info.Available) { // nats.go says if that will not do
		w := newWire(nc, line, o.inboxPrefix(), d.q.expectsLarge)
		if good, err := w.check(early); err != nil {
			return nil, fmt.Errorf("%w, behind %d bytes", err, good)
		}
		w.first = append(line, early...)
		return w, nil
	}
	if len(early) > 0 {
		return nil, errors.New("server broke the protocol: it goes on unencrypted where TLS begins")
	}
	tc, err := o.encrypt(ctx, nc, name)
	if err != nil {
		return nil, err
	}
	return newWire(tc, line, o.inboxPrefix(), d.q.expectsLarge), nil
}

// encrypt makes a TLS connection of nc, to the server of that name. It reads the files
// for that.
func (o Options) encrypt(ctx context.Context, nc net.Conn, name string) (net.Conn, error) {
	conf := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	var err error
	if conf.RootCAs, err = o.roots(); err != nil {
		return nil, err
	}
	if conf.Certificates, err = o.certificates(); err != nil {
		return nil, err
	}
	tc := tls.Client(nc, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", nats.ErrTLS, err)
	}
	return tc, nil
}

const (
	// greetTime is how long a server may take to greet, and askTime how long one that
	// does not may take to say what it is.
	greetTime = 4 * time.Second
	askTime   = time.Second / 2
)

var errNoGreeting = errors.New("no greeting of a NATS server in time")

// greeting is readFirst with a limit. Most of those that wait to be asked say what they
// are when they are asked for something that there is not.
func greeting(ctx context.Context, nc net.Conn, in *bufio.Reader) ([]byte, error) {
	if err := nc.SetReadDeadline(time.Now().Add(greetTime)); err != nil {
		return nil, err
	}
	line, err := readFirst(in)
	if err == nil {
		return line, nc.SetReadDeadline(time.Time{})
	}
	if ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err
	}
	_ = nc.SetReadDeadline(time.Now().Add(askTime))
	if _, err := io.WriteString(nc, "PING\r\n\r\n"); err != nil {
		return nil, err
	}
	if _, err := readFirst(in); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, err
	}
	return nil, errNoGreeting
}

// readFirst reads the line that a server begins with.
func readFirst(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) >= len(infoWord) && !bytes.HasPrefix(line, infoWord):
			if neterr.Known(string(line)) != "" {
				return nil, neterr.Not("a NATS server", string(line))
			}
			return nil, fmt.Errorf("server broke the protocol: it begins with %.60q: is it NATS?", line)
		case len(line) > maxInfo:
			return nil, fmt.Errorf("server broke the protocol: a line of more than %d bytes, %.40q", maxInfo, line)
		case err == nil && !(bytes.HasPrefix(line, infoWord) && bytes.HasSuffix(line, []byte(lineEnd))):
			return nil, fmt.Errorf("server broke the protocol: %.60q", line)
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// roots are the authorities that may sign a server's certificate; nil: those of the system.
func (o Options) roots() (*x509.CertPool, error) {
	file := o.Options["ca"]
	if file == "" {
		return nil, nil
	}
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if err := keysize.Roots(pool, text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return pool, nil
}

// certificates are ours, for a server that asks for one.
func (o Options) certificates() ([]tls.Certificate, error) {
	if o.Options["cert"] == "" {
		return nil, nil
	}
	cert, err := readFile(o.Options["cert"])
	if err != nil {
		return nil, err
	}
	key, err := readFile(o.Options["key"])
	if err != nil {
		return nil, err
	}
	pair, err := keysize.Pair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Options["cert"], err)
	}
	return []tls.Certificate{pair}, nil
}

// nats.go connects again by itself and does not tell why a server cannot be reached, nor
// who answers there if that is none. So it is noted what its dials meet.

const (
	// failureAge is how long a failure counts: names get other addresses.
	failureAge = time.Minute
	// maxTold is how many servers an error names.
	maxTold = 3
)

// dialError is an error that dials knows of.
type dialError struct{ error }

// dials is what attempts to connect have met since there was a connection.
type dials struct {
	mu     sync.Mutex
	failed map[string]failure // by server
	last   string             // the server that was reached last
}

type failure struct {
	at  time.Time
	err error
}

func (d *dials) fail(addr string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = make(map[string]failure)
	}
	d.failed[addr] = failure{time.Now(), ofServer(addr, err)}
}

// reach notes a server that answers; it may still not let us in.
func (d *dials) reach(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = addr
}

// done notes that a connection is up, and returns its server.
func (d *dials) done() (server string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.failed)
	return d.last
}

// why is why servers cannot be reached, nil when nothing is known of any.
func (d *dials) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.failed, func(_ string, f failure) bool { return time.Since(f.at) > failureAge })
	addrs := slices.Sorted(maps.Keys(d.failed))
	if len(addrs) == 0 {
		return nil
	}
	var errs []error
	for _, a := range addrs[:min(len(addrs), maxTold)] {
		errs = append(errs, d.failed[a].err)
	}
	if more := len(addrs) - maxTold; more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return neterr.Join(errs...)
}

// reached is the server that was reached last.
func (d *dials) reached() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// maxFile bounds what is read of a file of roots, of credentials or of the folder's
// own, in bytes.
const maxFile = 1 << 20

// readFile reads a file that may have become something else: a pipe would keep
// the reconnect forever.
func readFile(path string) ([]byte, error) {
	text, err := files.Read(path, maxFile)
	if _, ok := errors.AsType[*fs.PathError](err); err != nil && !ok {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, err
}

// credentials are those of a file as it is when a connection is made.
func credentials(file string) nats.Option {
	token := func() (string, error) {
		text, err := readFile(file)
		if err != nil {
			return "", err
		}
		defer clear(text)
		return nkeys.ParseDecoratedJWT(text)
	}
	return nats.UserJWT(token, signer(file))
}

// nkey is that of a file as it is when a connection is made.
func nkey(file string) (nats.Option, error) {
	key, err := readKey(file)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return nats.Nkey(public, signer(file)), nil
}

// signer signs with the key in a file.
func signer(file string) func(nonce []byte) ([]byte, error) {
	return func(nonce []byte) ([]byte, error) {
		key, err := readKey(file)
		if err != nil {
			return nil, err
		}
		defer key.Wipe()
		return key.Sign(nonce)
	}
}

func readKey(file string) (nkeys.KeyPair, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := nkeys.ParseDecoratedNKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: has no key to sign with: %w", file, err)
	}
	return key, nil
}
