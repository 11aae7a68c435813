package main

import "syscall"

// child makes a process end with this one, however it ends, and leaves Ctrl-C to this one.
func child() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
