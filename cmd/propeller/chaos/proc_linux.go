package main

import "syscall"

// dieWithParent makes the kernel end a child when this process dies, however
// it dies.
func dieWithParent() *syscall.SysProcAttr {
	// A group of its own: Ctrl-C reaches this program alone, which ends the
	// others in order.
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
