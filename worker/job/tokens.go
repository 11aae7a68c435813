package job

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// BadToken is an element of a job's tokens that is no device token. It keeps
// the others from nothing.
type BadToken struct {
	Text string // as it stands in the job, cut to maxBadToken bytes; "" when it is no string
	Err  *Error // its key is the element's, as in tokens[17]
}

// maxBadToken bounds what of a malformed token goes into its record: more than
// the longest device token that could be meant.
const maxBadToken = 400

// maxMalformed bounds the records of one job about elements that are no tokens:
// 64 KiB have room for 30,000 of them, and a reader needs no more to find the
// fault.
const maxMalformed = 100

// usualToken is what one of a list takes: 64 digits, quotes and a comma.
const usualToken = 67

// list reads the tokens of a job. What stands there twice counts once. The
// well-formed ones are substrings of one copy of the list, if they are written
// in lower case. What this takes grows with the list, at most to three times it.
func (j *Job) list(raw []byte) error {
	text := string(raw)
	j.Tokens = make([]string, 0, len(raw)/usualToken+1)
	seen := newTokenSet(len(raw)/(apnsconn.MinToken+len(`"",`)) + 1)
	var strange map[string]bool // what is recorded of those that are no tokens
	i := -1
	_ = rawjson.Elements(raw, func(at int, value []byte) error { // it is a list, and f has no error
		i++
		element := text[at : at+len(value)]
		token, err := listed(i, element)
		switch {
		case err == nil && !seen.add(j.Tokens, token), err != nil && strange[element]:
		case err == nil:
			if len(j.Tokens) == cap(j.Tokens) { // the rest is probably like what has been read
				j.Tokens = slices.Grow(j.Tokens, 8+len(j.Tokens)*(len(raw)-at)/at)
			}
			j.Tokens = append(j.Tokens, token)
		case len(j.Malformed) == maxMalformed:
			j.MoreMalformed++
		default:
			if strange == nil {
				strange = make(map[string]bool)
			}
			strange[element] = true
			j.Malformed = append(j.Malformed, BadToken{cutToken(token), err})
		}
		return nil
	})
	switch {
	case len(j.Tokens) > 0:
		j.Notification.Token = j.Tokens[0]
		return nil
	case len(j.Malformed) > 0:
		first := j.Malformed[0].Err
		return &Error{first.Key, first.Why + "; no other of the tokens can be used either"}
	}
	return &Error{"tokens", "is empty"}
}

// tokenSet says which tokens stand in a list already, by their numbers there: a map
// of them would take more than the list.
type tokenSet struct {
	seed    maphash.Seed
	numbers []uint32 // from 1, where the token's hash leads or behind it; 0: none
}

// newTokenSet makes a set of at most so many.
func newTokenSet(most int) tokenSet {
	return tokenSet{maphash.MakeSeed(), make([]uint32, 1<<bits.Len(uint(most+most/2)))}
}

// add adds a token that is about to be appended to tokens, unless it is among them.
func (s tokenSet) add(tokens []string, token string) bool {
	last := uint64(len(s.numbers) - 1)
	for at := maphash.String(s.seed, token) & last; ; at = (at + 1) & last {
		switch n := s.numbers[at]; {
		case n == 0:
			s.numbers[at] = uint32(len(tokens) + 1)
			return true
		case tokens[n-1] == token:
			return false
		}
	}
}

// listed is element number i of a list of tokens, whose JSON is value.
func listed(i int, value string) (token string, fault *Error) {
	key := func() string { return fmt.Sprintf("tokens[%d]", i) }
	if value[0] != '"' {
		return "", &Error{key(), kindText[kindString]}
	}
	given := value[1 : len(value)-1]
	token, err := apnsconn.NormalizeToken(given)
	if err != nil { // perhaps only because of escapes, which cost a copy
		given = text([]byte(value))
		token, err = apnsconn.NormalizeToken(given)
	}
	if err != nil {
		return given, &Error{key(), whyToken(err)}
	}
	return token, nil
}

func whyToken(err error) string {
	if e, ok := asError(err).(*Error); ok {
		return e.Why
	}
	return err.Error()
}
