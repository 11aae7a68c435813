package worker

import (
	"bytes"
	"fmt"
	"strings"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// BadToken is an element of a job's tokens that is no device token. It keeps
// the others from nothing.
type BadToken struct {
	Text string    // as it stands in the job, cut to maxBadToken bytes; "" when it is no string
	Err  *JobError // its key is the element's, as in tokens[17]
}

// maxBadToken bounds what of a malformed token goes into its record: more than
// the longest device token that could be meant.
const maxBadToken = 400

// maxMalformed bounds the records of one job about elements that are no tokens:
// 64 KiB have room for 30,000 of them, and whoever reads them needs no more to
// find the fault.
const maxMalformed = 100

// list reads the tokens of a job. What stands there twice counts once. The
// well-formed ones are substrings of one copy of the list, if they are written
// in lower case.
func (j *Job) list(raw []byte) error {
	text := string(raw)
	elements := bytes.Count(raw, []byte{','}) + 1
	j.Tokens = make([]string, 0, elements)
	seen := make(map[string]struct{}, elements)
	i := 0
	_ = rawjson.Elements(raw, func(at int, raw []byte) error { // it is a list, and f has no error
		value := text[at : at+len(raw)]
		token, err := listed(i, value)
		i++
		name := token
		if value[0] != '"' { // no string, and so no other's name
			name = "\x00" + value
		}
		if _, twice := seen[name]; twice {
			return nil
		}
		seen[name] = struct{}{}
		switch {
		case err == nil:
			j.Tokens = append(j.Tokens, token)
		case len(j.Malformed) == maxMalformed:
			j.MoreMalformed++
		default:
			cut := strings.ToValidUTF8(token[:min(len(token), maxBadToken)], "")
			j.Malformed = append(j.Malformed, BadToken{cut, err})
		}
		return nil
	})
	switch {
	case len(j.Tokens) > 0:
		j.Notification.Token = j.Tokens[0]
		return nil
	case len(j.Malformed) > 0:
		first := j.Malformed[0].Err
		return &JobError{first.Key, first.Why + "; no other of the tokens can be used either"}
	}
	return &JobError{"tokens", "is empty"}
}

// listed is element number i of a list of tokens, whose JSON is value.
func listed(i int, value string) (token string, fault *JobError) {
	key := func() string { return fmt.Sprintf("tokens[%d]", i) }
	if value[0] != '"' {
		return "", &JobError{key(), kindText[kindString]}
	}
	given := value[1 : len(value)-1]
	token, err := apnsconn.NormalizeToken(given)
	if err != nil { // perhaps only because of escapes, which cost a copy
		given = text([]byte(value))
		token, err = apnsconn.NormalizeToken(given)
	}
	if err != nil {
		return given, &JobError{key(), whyToken(err)}
	}
	return token, nil
}

func whyToken(err error) string {
	if e, ok := asJobError(err).(*JobError); ok {
		return e.Why
	}
	return err.Error()
}
