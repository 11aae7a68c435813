package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"propeller/internal/files"
)

// Options are what Parse needs to know of its surroundings. Zero values mean
// those of the process.
type Options struct {
	Dir    string                      // relative paths start here; default the working directory
	Getenv func(string) (string, bool) // default os.LookupEnv
	Now    func() time.Time            // for the life of certificates; default time.Now
	// Lenient makes a fault of an app's credential that app's (App.Faults), and no
	// error: for a daemon, which works for all other apps meanwhile.
	Lenient bool
	// WithoutCredentials leaves certificates, keys, roots and secrets unread:
	// for a program that only puts jobs and may not read them. Such an app has no
	// Feedback.Webhook, nor the Feedback.Tube that goes with one.
	WithoutCredentials bool

	patience time.Duration // for one credential; default credentialTime
}

// Load reads the configuration at path with everything it names: secrets and
// certificates. Relative paths in it start at its own folder. The error is a
// Faults with every fault; it wraps fs.ErrNotExist when there is no file at path.
func Load(path string) (*Config, error) { return load(path, Options{}) }

// LoadLenient is Load with Options.Lenient.
func LoadLenient(path string) (*Config, error) { return load(path, Options{Lenient: true}) }

// LoadWithoutCredentials is Load with Options.WithoutCredentials.
func LoadWithoutCredentials(path string) (*Config, error) {
	return load(path, Options{WithoutCredentials: true})
}

func load(path string, o Options) (*Config, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, Faults{{File: path, Msg: err.Error(), Err: err}}
	}
	o.Dir = filepath.Dir(path)
	return Parse(path, data, o)
}

// Parse is Load with the file's content at hand. name stands for the file in
// faults and is Config.File. The error is a Faults.
func Parse(name string, data []byte, o Options) (*Config, error) {
	p := newParser(name, o)
	return p.result(p.document(data))
}

// Single makes a configuration of one app without a file. flags holds the
// flags that were given: by name, without dashes in front. The names are the
// keys of the file with '-' for '_' and '.': "topic", "cert",
// "cert-password-file", "retry-min", "log-level", "queue" (several URLs
// separated by commas). Defaults, limits and checks are those of a file;
// ${NAME} is left as it is, since shells expand it. The error is a Faults
// whose keys are the flags.
func Single(flags map[string]string, o Options) (*Config, error) {
	p := newParser("", o)
	return p.result(p.flags(flags))
}

// result is what has been read, unless there is a fault that refuses it: then every
// fault.
func (p *parser) result(cfg Config) (*Config, error) {
	if len(p.faults) == 0 && (p.lenient || len(p.credential) == 0) {
		return &cfg, nil
	}
	all := slices.Concat(p.faults, p.credential).sorted()
	if len(all) > maxFaults {
		all = append(Faults{{File: p.file, Msg: "has too many faults to show all"}}, all[:maxFaults-1]...)
	}
	return nil, all
}

// parser gathers the faults of one configuration.
type parser struct {
	file   string
	dir    string
	getenv func(string) (string, bool)
	now    time.Time
	bare   bool // WithoutCredentials

	patience time.Duration // for one credential

	secretFiles []string // that hold secrets, apart from credentials

	lenient    bool
	faults     Faults // of the file; at most maxFaults+1
	credential Faults // of apps' credentials, all of them: an app whose fault is not known would be taken for a good one
}

func newParser(name string, o Options) *parser {
	p := &parser{file: name, dir: o.Dir, getenv: o.Getenv, bare: o.WithoutCredentials, lenient: o.Lenient, patience: cmp.Or(o.patience, credentialTime)}
	if p.getenv == nil {
		p.getenv = os.LookupEnv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p.now = o.Now()
	return p
}

// at adds a fault of the given line and key.
func (p *parser) at(line int, key, format string, args ...any) {
	if p.full() {
		return
	}
	p.add(Fault{Line: line, Key: key, Msg: fmt.Sprintf(format, args...)})
}

// maxFaults bounds the report on a file that is something else altogether:
// nobody reads more.
const maxFaults = 1000

// full reports whether no more faults are wanted: what finds them can stop.
func (p *parser) full() bool { return len(p.faults) > maxFaults }

func (p *parser) add(f Fault) {
	if !p.full() {
		f.File = p.file
		p.faults = append(p.faults, f)
	}
}

// path makes a path of the configuration one that can be opened.
func (p *parser) path(text string) string {
	if filepath.IsAbs(text) {
		return text
	}
	return filepath.Join(p.dir, text)
}

// readFile reads a regular file of at most limit bytes. A pipe could block for
// ever and would be empty at the next reload, so it is refused. Errors do not
// hold the path: the fault they go into does.
func readFile(path string, limit int64) ([]byte, error) {
	data, err := files.Read(path, limit)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fileError(err)
	}
	return data, err
}

// fileError says in a few words why a file cannot be read, and what to do.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errCause{"no such file", err}
	case errors.Is(err, fs.ErrPermission):
		return errCause{"cannot be read: permission denied: give the daemon's user read access", err}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return errCause{"cannot be read: " + pe.Err.Error(), err}
	}
	return errCause{"cannot be read", err}
}

// errCause is an error with a text of its own and an unwrapped cause.
type errCause struct {
	text  string
	cause error
}

func (e errCause) Error() string { return e.text }
func (e errCause) Unwrap() error { return e.cause }
