package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Options are what Parse needs to know of its surroundings. Zero values mean
// those of the process.
type Options struct {
	Dir    string                      // relative paths start here; default the working directory
	Getenv func(string) (string, bool) // default os.LookupEnv
	Now    func() time.Time            // for the life of certificates; default time.Now
	// WithoutCredentials leaves certificates, keys, roots and secrets unread:
	// for a program that only puts jobs and may not read them. Such an app has no
	// Feedback.Webhook, nor the Feedback.Tube that goes with one.
	WithoutCredentials bool
}

// Load reads the configuration at path with everything it names: secrets and
// certificates. Relative paths in it start at its own folder. The error is a
// Faults; it wraps fs.ErrNotExist when there is no file at path.
func Load(path string) (*Config, error) { return load(path, Options{}) }

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
	cfg := p.document(data)
	if len(p.faults) > 0 {
		return nil, p.faults.sorted()
	}
	return &cfg, nil
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
	cfg := p.flags(flags)
	if len(p.faults) > 0 {
		return nil, p.faults.sorted()
	}
	return &cfg, nil
}

// parser gathers the faults of one configuration.
type parser struct {
	file   string
	dir    string
	getenv func(string) (string, bool)
	now    time.Time
	bare   bool // WithoutCredentials
	faults Faults
}

func newParser(name string, o Options) *parser {
	p := &parser{file: name, dir: o.Dir, getenv: o.Getenv, bare: o.WithoutCredentials}
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
	p.add(Fault{Line: line, Key: key, Msg: fmt.Sprintf(format, args...)})
}

// maxFaults bounds the report on a file that is something else altogether:
// nobody reads more.
const maxFaults = 1000

func (p *parser) add(f Fault) {
	switch n := len(p.faults); {
	case n < maxFaults-1:
		f.File = p.file
		p.faults = append(p.faults, f)
	case n == maxFaults-1:
		p.faults = append(p.faults, Fault{File: p.file, Msg: "has too many faults to show all"})
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
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fileError(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("is larger than %d KiB", limit>>10)
	}
	return data, nil
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
