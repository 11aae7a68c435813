//go:build !linux

package main

import (
	"errors"
	"syscall"
)

// dieWithParent: only Linux ends children with their parent.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// waitsForEvents: only Linux tells.
func waitsForEvents(int) bool { return false }

func mountSmall(string, int) error { return errors.ErrUnsupported }

func unmount(string) error { return nil }
