package job

import (
	"errors"
	"slices"
	"strings"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// salvaged is what can be read of a job that can never work: where it was to go, its ref
// and its origin, for its record. Keys may be unknown, given twice or of another kind, and
// the body may break off or be no UTF-8: what stands in front of that is read.
func (read *Job) salvaged(body []byte) (j Job) {
	list := read.Tokens != nil // has been read, and is not small
	if list {
		j.Tokens, j.Malformed, j.MoreMalformed, j.Notification.Token = read.Tokens, read.Malformed, read.MoreMalformed, read.Notification.Token
	}
	var token, tokens []byte
	_ = rawjson.Members(body, func(name, value []byte) error { // the job's fault is known
		switch nameOf(name) {
		case "token":
			token = value
		case "tokens":
			tokens = value
		case "channel_id":
			if isString(value) {
				j.Notification.ChannelID = cutReason(text(value), maxRef)
			}
		case "ref":
			if isString(value) {
				j.Ref = cutReason(text(value), maxRef)
			} else if isNumber(value) {
				j.Ref = cutReason(string(value), maxRef)
			}
		}
		return nil
	})
	for _, given := range [...][]byte{tokens, token} {
		switch {
		case given == nil || list:
		case isList(given):
			_ = j.list(given)
		case isString(given):
			j.oneMore(text(given))
		}
	}
	j.Parent, _ = parentOf(body)
	return j
}

// oneMore adds a token to those of a job that can never work.
func (j *Job) oneMore(given string) {
	token, err := apnsconn.NormalizeToken(given)
	var fault *Error
	switch {
	case err != nil && errors.As(asError(err), &fault):
		j.Malformed = append(j.Malformed, BadToken{cutToken(given), fault})
	case !slices.Contains(j.Tokens, token):
		j.Tokens = append(j.Tokens, token)
		j.Notification.Token = j.Tokens[0]
	}
}

// cutToken is a token that is none, for its record.
func cutToken(given string) string {
	return strings.Clone(cutReason(given, maxBadToken))
}
