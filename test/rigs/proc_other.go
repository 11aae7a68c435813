//go:build !linux

package main

import "syscall"

// child leaves Ctrl-C to this process.
func child() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
