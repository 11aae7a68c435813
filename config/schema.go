package config

import (
	"fmt"
	"slices"
	"strings"

	"propeller/internal/nearest"
)

// schema is the keys that a mapping may have.
type schema struct {
	keys    []string // dotted; a secret's _file partner included
	secrets []string // those of keys that hold a secret
	special []string // keys read by code of their own; for suggestions
	where   string   // "at the top", for messages
	other   *schema  // the keys of the other place, for a key put in the wrong one
}

// schemaOf lists the keys of a table of fields.
func schemaOf[T any](where string, fields []field[T], special ...string) schema {
	s := schema{special: special, where: where}
	for _, f := range fields {
		s.keys = append(s.keys, f.key)
		if f.secret {
			s.keys = append(s.keys, f.key+fileSuffix)
			s.secrets = append(s.secrets, f.key)
		}
	}
	return s
}

// nested reports whether other keys lie below key.
func (s schema) nested(key string) bool {
	for _, k := range s.keys {
		if strings.HasPrefix(k, key+".") {
			return true
		}
	}
	return false
}

// names returns the keys right below prefix ("" or "retry.").
func (s schema) names(prefix string) []string {
	var out []string
	seen := map[string]bool{}
	for _, k := range append(s.keys[:len(s.keys):len(s.keys)], s.special...) {
		rest, ok := strings.CutPrefix(k, prefix)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

// unknown says what is wrong with a key that the schema does not have.
func (s schema) unknown(prefix, key string) string {
	if prefix == "" && s.other != nil && slices.Contains(s.other.names(""), key) {
		return fmt.Sprintf("does not belong %s: put it %s", s.where, s.other.where)
	}
	if group, rest, ok := strings.Cut(key, "."); ok && slices.Contains(s.keys, prefix+key) {
		return fmt.Sprintf("a key has no dots: write %s: and, indented below it, %s:", group, rest)
	}
	names := s.names(prefix)
	if near := nearest.Of(key, names); near != "" {
		return fmt.Sprintf("unknown key: did you mean %q?", near)
	}
	return "unknown key: there are " + strings.Join(names, ", ")
}
