package neterr

import "strings"

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
