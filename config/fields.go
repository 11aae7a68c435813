package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/nearest"
	"propeller/internal/neterr"
	"propeller/internal/pemfile"
	"propeller/queue"
)

// field is a key of the configuration: a field of a struct with its tags, or of a struct
// within that. The tags:
//
//	key         its name in propeller.yaml
//	default     its value when it is not given
//	min, max    the limits of a number or duration, and why they are there
//	oneof       the words it may be
//	as          how it is read (readers), if its type does not say
//	path        it names a file or folder: the field gets a path that can be opened
//	secret      it is never quoted, and KEY_file names a file with it
//	credential  it is part of an app's cert, key or roots, which Same compares by content
//	own         it is one app's own: not in defaults
//	live        a reload changes it in an app that goes on running
//	flag, usage it is a flag of run: the name of the value, and the help
type field struct {
	key        string // dotted: "retry.min"
	index      []int
	tag        reflect.StructTag
	credential string
	path       bool
	secret     bool
	own        bool
	live       bool
	several    bool // values, or servers: read by code of its own
}

// The keys at the top, of an app, and of an entry of http.keys. Never written to.
var (
	configFields = fieldsOf(reflect.TypeFor[Config]())
	appFields    = fieldsOf(reflect.TypeFor[App]())
	keyFields    = fieldsOf(reflect.TypeFor[HTTPKey]())
)

// fieldsOf returns the keys of a struct, in its order.
func fieldsOf(t reflect.Type) (all []field) {
	for sf := range t.Fields() {
		key, ok := sf.Tag.Lookup("key")
		if !ok {
			continue
		}
		if sf.Type.Kind() == reflect.Struct {
			below := fieldsOf(sf.Type)
			for _, f := range below {
				f.key, f.index = key+"."+f.key, append(slices.Clone(sf.Index), f.index...)
				all = append(all, f)
			}
			if len(below) > 0 {
				continue
			}
		}
		has := func(tag string) bool { return sf.Tag.Get(tag) == "true" }
		all = append(all, field{
			key: key, index: sf.Index, tag: sf.Tag, credential: sf.Tag.Get("credential"),
			path: has("path"), secret: has("secret"), own: has("own"), live: has("live"),
			several: sf.Type.Kind() == reflect.Slice || key == "queue",
		})
	}
	return all
}

// find returns the field that a dotted key is of; nil if there is none.
func find(fields []field, key string) *field {
	for i := range fields {
		f := &fields[i]
		if name, ok := strings.CutPrefix(key, f.key); ok && (name == "" || f.secret && name == fileSuffix) {
			return f
		}
	}
	return nil
}

// names are the keys that f goes by.
func (f *field) names() []string {
	if f.secret {
		return []string{f.key, f.key + fileSuffix}
	}
	return []string{f.key}
}

// ofCredential reports whether f is part of a certificate or key: what is wrong with it
// is its app's fault, not the file's.
func (f *field) ofCredential() bool { return f.credential == "cert" || f.credential == "key" }

// at is a pointer to the field in the struct that in points to.
func (f *field) at(in any) any {
	return reflect.ValueOf(in).Elem().FieldByIndex(f.index).Addr().Interface()
}

// value is what the struct that in points to has there, to be compared.
func (f *field) value(in any) any {
	at := f.at(in)
	if secret, ok := at.(interface{ Reveal() string }); ok {
		return secret.Reveal()
	}
	return reflect.ValueOf(at).Elem().Interface()
}

// setDefaults sets the fields of dst that have a default.
func setDefaults(fields []field, dst any) {
	for _, f := range fields {
		if text, ok := f.tag.Lookup("default"); ok {
			if err := f.set(dst, text); err != nil {
				panic(fmt.Sprintf("config: the default of %s %v", f.key, err))
			}
		}
	}
}

// Max is the largest value of an app's key that is a number.
func Max(key string) int {
	n, _ := strconv.Atoi(find(appFields, key).tag.Get("max"))
	return n
}

// set reads text into dst's field. Errors say what is wrong and what to do, without the
// text.
func (f *field) set(dst any, text string) error {
	if words := strings.Fields(f.tag.Get("oneof")); len(words) > 0 && !slices.Contains(words, text) {
		last := len(words) - 1
		return errors.New("must be " + strings.Join(words[:last], ", ") + " or " + words[last])
	}
	at := f.at(dst)
	if as := f.tag.Get("as"); as != "" {
		return readers[as](at, text)
	}
	switch at := at.(type) {
	case *string:
		*at = text
	case *Secret:
		*at = NewSecret(text)
	case *bool:
		*at = text == "true"
	case *int:
		return setWithin(f, at, text, "a whole number", strconv.Atoi)
	case *time.Duration:
		return setWithin(f, at, text, "a duration with a unit,", time.ParseDuration)
	case *slog.Level:
		return at.UnmarshalText([]byte(text))
	default:
		panic(fmt.Sprintf("config: %s is a %T, which nothing reads", f.key, at))
	}
	return nil
}

// setWithin reads a value that must be within f's limits, which a test parses.
func setWithin[T cmp.Ordered](f *field, at *T, text, what string, parse func(string) (T, error)) error {
	lo, hi := f.tag.Get("min"), f.tag.Get("max")
	low, _ := parse(lo)
	high, _ := parse(hi)
	v, err := parse(text)
	if err != nil || v < low || v > high {
		return fmt.Errorf("must be %s from %s to %s: %s", what, lo, hi, f.tag.Get("why"))
	}
	*at = v
	return nil
}

// readers read the fields tagged with "as". Never written to.
var readers = map[string]func(at any, text string) error{
	"name":           reader(setName),
	"tube":           reader(setTube),
	"server":         reader(setServer),
	"proxy":          reader(setProxy),
	"webhook":        reader(setWebhook),
	"webhook_secret": reader(setWebhookSecret),
	"token":          reader(setToken),
	"client":         reader(setClient),
	"base_path":      reader(setBasePath),
}

func reader[T any](set func(at *T, text string) error) func(any, string) error {
	return func(at any, text string) error { return set(at.(*T), text) }
}

func setTube(at *string, text string) error {
	if err := queue.CheckTube(text); err != nil {
		return neterr.Reworded(fmt.Sprintf("must be letters, digits, '-', '_' and single inner dots, not start with '-', and have at most %d bytes", queue.MaxTubeLen), err)
	}
	*at = text
	return nil
}

// setServer takes the names in capitals, too: production is what it was where
// Production was.
func setServer(at *string, text string) error {
	for _, name := range []string{apnsconn.Production.String(), apnsconn.Sandbox.String(), ServerMock} {
		if strings.EqualFold(text, name) {
			text = name
		}
	}
	*at = text
	return nil
}

var errEmpty = errors.New("is empty: give a value or remove the key")

// assign sets the fields that l gives. It returns the keys that were given and
// could not be set, so that nothing is checked that builds on them.
func (p *parser) assign(l layer, fields []field, dst any) (bad map[string]bool) {
	bad = map[string]bool{}
	for _, f := range fields {
		if f.several || p.WithoutCredentials && (f.secret || f.credential != "") {
			continue
		}
		e, text, given, ok := p.read(l, &f)
		if given && ok {
			ok = p.assignOne(e, text, &f, dst)
		}
		if !ok {
			bad[f.key] = true
		}
	}
	return bad
}

// assignOne sets one field to the text of its entry, and reports whether that went well.
func (p *parser) assignOne(e entry, text string, f *field, dst any) bool {
	if text == "" && !f.secret {
		p.wrong(e, errEmpty)
		return false
	}
	if f.path {
		if pemfile.Holds(text) {
			p.wrong(e, errors.New("holds the key or certificate itself: give the path of a file with it"))
			return false
		}
		text = p.path(text)
	}
	if err := f.set(dst, text); err != nil {
		p.wrong(e, err)
		return false
	}
	return true
}

// hint adds to a missing file where it was looked for.
func (p *parser) hint(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(path) && p.file != "" {
		return neterr.Reworded(err.Error()+": relative paths start at the folder of this file", err)
	}
	return err
}

// table is the keys that a mapping may have.
type table struct {
	fields []field
	where  string // "at the top", for messages
	other  *table // the keys of the other place, for a key put in the wrong one
}

// below returns the names of the keys right below prefix ("" or "retry.").
func (t *table) below(prefix string) (names []string) {
	for _, f := range t.fields {
		for _, key := range f.names() {
			rest, ok := strings.CutPrefix(key, prefix)
			name, _, _ := strings.Cut(rest, ".")
			if ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// unknown says what is wrong with a key that the table does not have.
func (t *table) unknown(prefix, key string) string {
	if prefix == "" && t.other != nil && slices.Contains(t.other.below(""), key) {
		return fmt.Sprintf("does not belong %s: put it %s", t.where, t.other.where)
	}
	if group, rest, ok := strings.Cut(key, "."); ok && find(t.fields, prefix+key) != nil {
		return fmt.Sprintf("a key has no dots: write %s: and, indented below it, %s:", group, rest)
	}
	names := t.below(prefix)
	if near := nearest.Of(key, names); near != "" {
		return fmt.Sprintf("unknown key: did you mean %q?", near)
	}
	return "unknown key: the keys here are " + strings.Join(names, ", ")
}

// short is a duration as people write it: 15m, not 15m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
