package config

import (
	"fmt"
	"slices"
	"strings"
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
	if near := nearest(key, names); near != "" {
		return fmt.Sprintf("unknown key: did you mean %q?", near)
	}
	return "unknown key: there are " + strings.Join(names, ", ")
}

// maxSuggest bounds the keys that are compared: a longer one is no slip of the
// finger, and the comparison's cost grows with its length.
const maxSuggest = 32

// nearest returns the name that key was probably meant to be, or "".
func nearest(key string, names []string) string {
	if len(key) > maxSuggest {
		return ""
	}
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
	}
	best, bestDistance := "", 3
	for _, name := range names {
		if len(key) >= 3 && strings.HasPrefix(name, key) {
			return name
		}
		d := distance(plain(key), plain(name))
		// A third of the letters wrong is another word.
		if d < bestDistance && d*3 <= len(name) {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
