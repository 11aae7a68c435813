//go:build !linux

package main

import (
	"syscall"
	"time"
)

// dieWithParent has no equivalent here: a killed run may leave nghttpd behind.
func dieWithParent() *syscall.SysProcAttr { return nil }

// processTime cannot be told here without other means.
func processTime(int) (time.Duration, bool) { return 0, false }
