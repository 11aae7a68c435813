package neterr

import (
	"regexp"
	"strings"
)

// Reworded is an error with a text of its own for what is wrapped.
func Reworded(text string, errs ...error) error { return &reworded{text, errs} }

type reworded struct {
	text string
	errs []error
}

func (e *reworded) Error() string   { return e.text }
func (e *reworded) Unwrap() []error { return e.errs }

// After is err for a sentence that began with prefix already.
func After(prefix string, err error) error {
	text, twice := strings.CutPrefix(err.Error(), prefix)
	if !twice {
		return err
	}
	return Reworded(text, err)
}

var port = regexp.MustCompile(`:[0-9]{1,5}\b`)

// Same says whether two errors of connections say the same, but for the ports in their texts:
// of those that a system hands out, each try has another.
func Same(a, b error) bool {
	return port.ReplaceAllString(a.Error(), "") == port.ReplaceAllString(b.Error(), "")
}

// Join is errors.Join on one line.
func Join(errs ...error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return Reworded(strings.Join(texts, "; "), errs...)
}
