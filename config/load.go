package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"propeller/internal/files"
	"propeller/internal/neterr"
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
// certificates. Relative paths in it start at its own folder, whatever Options.Dir. The
// error is a Faults with every fault; it wraps fs.ErrNotExist when there is no file at path.
func Load(path string, o Options) (*Config, error) {
	data, err := readFile(path, maxFile)
	if err != nil {
		return nil, Faults{{File: path, Msg: err.Error(), Err: err}}
	}
	o.Dir = filepath.Dir(path)
	return Parse(path, data, o)
}

const (
	// maxFile bounds the configuration and certificate files: 1 MiB is
	// thousands of apps, or a bundle of every public root.
	maxFile = 1 << 20
	// maxSecretFile bounds the file of one secret.
	maxSecretFile = 64 << 10
)

// Parse is Load with the file's content at hand. name stands for the file in
// faults and is Config.File. The error is a Faults.
func Parse(name string, data []byte, o Options) (*Config, error) {
	p := newParser(name, o)
	return p.result(p.document(data))
}

// Single makes a configuration of one app without a file. flags holds the
// flags that were given: by name (see Flags), without dashes in front. The names are the
// keys of the file with '-' for '_' and '.': "cert-password-file"; "queue" may be several
// URLs separated by commas. Defaults, limits and checks are those of a file;
// ${NAME} is left as it is, since shells expand it. The error is a Faults
// whose keys are the flags.
func Single(flags map[string]string, o Options) (*Config, error) {
	p := newParser("", o)
	return p.result(p.flags(flags))
}

// result is what has been read, unless there is a fault that refuses it: then every
// fault.
func (p *parser) result(cfg Config) (*Config, error) {
	if len(p.faults) == 0 && (p.Lenient || len(p.credential) == 0) {
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
	*origin
	now   time.Time
	blank App // without keys
	files loaded

	secretFiles []string // that hold secrets, apart from credentials
	faults      Faults   // of the file; at most maxFaults+1
	credential  Faults   // of apps' credentials, all of them: an app whose fault is not known would be taken for a good one
}

func newParser(name string, o Options) *parser {
	if o.Getenv == nil {
		o.Getenv = os.LookupEnv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.patience = cmp.Or(o.patience, credentialTime)
	return &parser{origin: &origin{o, name}, now: o.Now(), blank: Default().Apps[0]}
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

// origin is what all apps of one reading have in common.
type origin struct {
	Options
	file string
}

// path makes a path of the configuration one that can be opened.
func (o *origin) path(text string) string {
	if filepath.IsAbs(text) {
		return text
	}
	return filepath.Join(o.Dir, text)
}

// path is that of origin, made once of what apps have in common.
func (p *parser) path(text string) string {
	path, _ := p.files.paths.of(text, func() (string, error) { return p.origin.path(text), nil })
	return path
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
		return neterr.Reworded("no such file", err)
	case errors.Is(err, fs.ErrPermission):
		return neterr.Reworded("cannot be read: permission denied: give the daemon's user read access", err)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return neterr.Reworded("cannot be read: "+pe.Err.Error(), err)
	}
	return neterr.Reworded("cannot be read", err)
}

// flagPath stands in front of every flag's name in a fault.
const flagPath = "--"

// flagName is the flag of a key: "retry.min" → "retry-min".
func flagName(key string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(key)
}

// Flag is a flag of run: it means what the key of its name means in a file.
type Flag struct{ Name, Value, Usage string }

// Flags are the flags of one app without a file, in the order of the structs.
func Flags() (all []Flag) {
	for _, f := range slices.Concat(appFields, configFields) {
		value, ok := f.tag.Lookup("flag")
		if !ok {
			continue
		}
		all = append(all, Flag{flagName(f.key), value, f.tag.Get("usage")})
		if f.secret {
			all = append(all, Flag{flagName(f.key + fileSuffix), "FILE", "the same, read from a file"})
		}
	}
	return all
}

// flags reads the flags of one app. The Config is of use only without faults.
func (p *parser) flags(flags map[string]string) Config {
	cfg := Default()
	rest := maps.Clone(flags)
	if text, ok := rest["queue"]; ok {
		delete(rest, "queue")
		cfg.Queue = p.queueFlag(text)
	}
	global := takeFlags(rest, configFields)
	bad := p.global(global, &cfg)
	cfg.Apps = p.finish([]*draft{p.draft(takeFlags(rest, appFields), flagPath, 0)}, &cfg)
	p.http(global, nil, bad, &cfg)
	p.warnOfRights(&cfg)

	for _, name := range slices.Sorted(maps.Keys(rest)) {
		p.wrong(entry{key: flagPath + name, flag: true}, errors.New("unknown flag"))
	}
	return cfg
}

// takeFlags moves the flags of some fields into a layer.
func takeFlags(rest map[string]string, fields []field) layer {
	l := layer{}
	for _, f := range fields {
		if _, ok := f.tag.Lookup("flag"); !ok {
			continue
		}
		for _, key := range f.names() {
			name := flagName(key)
			if text, ok := rest[name]; ok {
				delete(rest, name)
				l[key] = entry{text: text, key: flagPath + name, flag: true, secret: f.secret && key == f.key, cred: f.ofCredential()}
			}
		}
	}
	return l
}
