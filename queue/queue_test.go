package queue

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckTube(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"a": true, "com.example.app": true, "com.example.app.voip": true, "_x-1": true, "0": true,
		strings.Repeat("x", MaxTubeLen):   true,
		strings.Repeat("x", MaxTubeLen+1): false,
		"":                                false, "-a": false, "a b": false, "a..b": false, ".a": false, "a.": false, "a*": false,
		"a>": false, "a.-b": true, "a-": true, "-": false, ".": false, "a.b..c": false, "a@b": false, "a[": false, "a`": false, "a{": false, "a:": false, "a\n": false, "a\r\nquit": false, `a\b`: false, "a/b": false, "é": false,
	} {
		err := CheckTube(name)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil && !errors.Is(err, ErrRejected) {
			t.Errorf("%q: %v does not wrap ErrRejected", name, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q: the error breaks the line", name)
		}
	}
}
