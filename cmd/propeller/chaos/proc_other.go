//go:build !linux

package main

import "syscall"

// dieWithParent: only Linux ends children with their parent.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// waitsForEvents: only Linux tells.
func waitsForEvents(int) bool { return false }
