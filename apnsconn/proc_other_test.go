//go:build !linux

package apnsconn

import "syscall"

// dieWithParent: only Linux ends a child with its parent.
func dieWithParent() *syscall.SysProcAttr { return nil }
