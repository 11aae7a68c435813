//go:build !unix || solaris || illumos || aix

package jetstream

import (
	"errors"
	"os"
)

// lock fails: without it, two processes could spoil a folder.
func lock(*os.File) error { return errors.New("not supported on this system") }

func unlock(*os.File) error { return nil }
