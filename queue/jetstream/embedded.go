package jetstream

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"

	"propeller/internal/files"
	"propeller/queue/queueurl"
)

const (
	// syncInterval is how often an embedded server writes through to the disk.
	// The server's own default is two minutes (nats-server: filestore.go),
	// though jobs are acknowledged at once. One second costs nothing that can
	// be measured.
	syncInterval = time.Second

	// startTime bounds the start of an embedded server beyond reading its files.
	startTime = 30 * time.Second

	lockFile   = "lock"   // held by the process that owns the folder, with its id
	tokenFile  = "token"  // what other programs must show
	listenFile = "listen" // where they connect; there while the server runs
)

// embedded is a NATS server inside this process. See embedded_restart.go for how it is
// started again.
type embedded struct {
	dir       string
	token     string
	lock      *flock.Flock
	look      event // something may be wrong with the server
	restarted event // another server was started
	// unread is why the server cannot read a job; room for one.
	unread   chan string
	door     *listener // lets other programs in; nil: they are not let in
	capacity capacity

	mu      sync.Mutex
	server  *server.Server // nil while none runs
	log     *serverLog     // its
	started time.Time
	fault   error // why it stores nothing; nil when it does
	faultAt time.Time
	hidden  bool // what other programs look for could not be written
}

// InUseError says that a folder belongs to another process.
type InUseError struct {
	Dir    string
	Holder string // its process id, "" when it is not known
	Listen string // where it takes connections, "" for nowhere
}

func (e *InUseError) Error() string {
	holder := "another process"
	if e.Holder != "" {
		holder = "process " + e.Holder
	}
	return fmt.Sprintf("jetstream: folder %q: in use by %s", e.Dir, holder)
}

// startEmbedded starts a server on o.Dir, alone there.
func startEmbedded(o Options) (*embedded, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("jetstream: folder: %w", err)
	}
	if err := files.CheckFolder(o.Dir); err != nil {
		return nil, fmt.Errorf("jetstream: folder %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	e := &embedded{dir: o.Dir, lock: lock, look: newEvent(), restarted: newEvent(), unread: make(chan string, 1), capacity: capacity{free: diskFree, look: newEvent()}}
	if err := e.open(o); err != nil {
		_ = e.close()
		return nil, fmt.Errorf("jetstream: folder %q: %w", o.Dir, err)
	}
	return e, nil
}

// open takes the port of the listener, if one is configured, and starts a server.
func (e *embedded) open(o Options) (err error) {
	if o.Options["listen"] != "" {
		if e.token, err = ownToken(filepath.Join(o.Dir, tokenFile)); err != nil {
			return fmt.Errorf("token: %w", err)
		}
		if e.door, err = listen(o.Options["listen"], e.token, e.InProcessConn, o.Log); err != nil {
			return err
		}
	}
	if err := e.start(o); err != nil {
		return err
	}
	if e.door != nil {
		e.door.accept()
	}
	return nil
}

// start starts a server. When it fails, none runs.
func (e *embedded) start(o Options) error {
	if err := checkFiles(filepath.Join(o.Dir, server.JetStreamStoreDir)); err != nil {
		return err
	}
	s, err := server.NewServer(e.serverOptions(o))
	if err != nil {
		return err
	}
	log := newServerLog(o.Log, e.failDisk, e.unread)
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startTime) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		log.end()
		if last := log.last(); last != "" {
			return fmt.Errorf("server does not start: %s", last)
		}
		return errors.New("server does not start")
	}
	e.mu.Lock()
	e.server, e.log, e.started = s, log, time.Now()
	e.hidden = e.door != nil
	e.mu.Unlock()
	if err := e.show(); err != nil { // the disk may be full
		o.Log.Warn("other programs cannot find the queue until files can be written to its folder", "queue", o.String(), "err", err)
	}
	return nil
}

// show writes what other programs need to find the server, unless they can.
func (e *embedded) show() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.hidden || e.server == nil {
		return nil
	}
	path := filepath.Join(e.dir, tokenFile)
	if readLine(path) != e.token {
		if err := writeFile(path, e.token); err != nil {
			return err
		}
	}
	err := writeFile(filepath.Join(e.dir, listenFile), e.door.l.Addr().String())
	e.hidden = err != nil
	return err
}

func (e *embedded) serverOptions(o Options) *server.Options {
	return &server.Options{
		ServerName:             "propeller",
		DontListen:             true, // the listener does
		Authorization:          e.token,
		AuthTimeout:            authTime,
		MaxControlLine:         maxControlLine,
		WriteDeadline:          writeTime,
		JetStream:              true,
		StoreDir:               o.Dir,
		JetStreamMaxStore:      noLimit, // see full.go
		SyncInterval:           syncInterval,
		SyncAlways:             o.Options["fsync"] != "",
		NoSigs:                 true, // signals are the daemon's
		NoLog:                  true, // its own; serverLog is set instead
		DisableJetStreamBanner: true,
		// Of streams that name no number, those of older versions among them.
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
	}
}

// ownToken reads the folder's token, or makes one.
func ownToken(path string) (string, error) {
	b, err := readFile(path)
	if token := strings.TrimSpace(string(b)); err == nil && token != "" {
		return token, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	b = make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b), nil
}

// close ends the server and gives the folder free.
func (e *embedded) close() error {
	if e.door != nil {
		e.door.close()
	}
	e.stop()
	return e.lock.Close()
}

// stop ends the server, if one runs.
func (e *embedded) stop() {
	e.mu.Lock()
	s, log := e.server, e.log
	e.server = nil
	e.mu.Unlock()
	if s != nil {
		_ = os.Remove(filepath.Join(e.dir, listenFile))
		s.Shutdown()
		s.WaitForShutdown()
		log.end()
	}
}

// running is the server, or nil, and when it was started.
func (e *embedded) running() (s *server.Server, since time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server, e.started
}

// InProcessConn connects to the server that runs now: nats.go asks each time
// that it connects again.
func (e *embedded) InProcessConn() (net.Conn, error) {
	s, _ := e.running()
	if s == nil {
		return nil, errNoServer
	}
	return s.InProcessConn()
}

// lockDir locks the folder for this process.
func lockDir(dir string) (*flock.Flock, error) {
	path, listen := filepath.Join(dir, lockFile), filepath.Join(dir, listenFile)
	lock, err := files.Lock(path)
	switch {
	case errors.Is(err, files.ErrLocked):
		return nil, &InUseError{Dir: dir, Holder: files.Holder(path), Listen: readLine(listen)}
	case err != nil:
		return nil, fmt.Errorf("jetstream: folder: %w", err)
	}
	// A process that was killed left this behind.
	_ = os.Remove(listen)
	return lock, nil
}

func readLine(path string) string {
	b, _ := readFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

// attach turns the options of an embedded server into those of a client of the
// process that owns its folder, if it can be reached.
func attach(o Options, err error) (Options, bool) {
	used, ok := errors.AsType[*InUseError](err)
	if !ok || used.Listen == "" {
		return o, false
	}
	o.URL = queueurl.URL{Scheme: "nats", Servers: []string{used.Listen}, Token: readLine(filepath.Join(o.Dir, tokenFile)), Options: map[string]string{"replicas": "1"}}
	return o, true
}

// The files of an embedded queue are written only where there are regular files, see
// dial.go for reading: opening a named pipe, which may be there by mistake or by
// malice, blocks for ever.

// maxWalk is how many of the server's files are looked at before a start.
const maxWalk = 1_000_000

// writeFile writes a file that only its owner can read, in one step.
func writeFile(path, text string) error {
	tmp := path + ".new"
	f, err := files.OpenOwn(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		_, err = f.WriteString(text + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// checkFiles says what is neither a file nor a folder among the server's files, which it
// would open.
func checkFiles(dir string) error {
	n := 0
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		n++
		switch {
		case n > maxWalk:
			return fs.SkipAll
		case err != nil:
			return nil // the server says so, or does not need it
		}
		mode := d.Type()
		if mode&fs.ModeSymlink != 0 { // to another disk, for example
			if info, err := os.Stat(path); err == nil {
				mode = info.Mode()
			} else {
				return nil
			}
		}
		if !mode.IsRegular() && !mode.IsDir() {
			return fmt.Errorf("%s: %w, nor a folder: remove it", path, files.ErrNotRegular)
		}
		return nil
	})
}
