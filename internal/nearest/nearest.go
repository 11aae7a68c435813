// Package nearest guesses which of some names a misspelt one was meant to be.
package nearest

import "strings"

// maxSuggest bounds the keys that are compared: a longer one is no slip of the
// finger, and the comparison's cost grows with its length.
const maxSuggest = 32

// Of returns the name that key was probably meant to be, or "".
func Of(key string, names []string) string {
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
