//go:build !linux

package beanstalktest

import "syscall"

// dieWithParent: only Linux ends a child with its parent. Elsewhere a server
// outlives a test process that is killed.
func dieWithParent() *syscall.SysProcAttr { return nil }
