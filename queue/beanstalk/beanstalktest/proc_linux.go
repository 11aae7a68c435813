package beanstalktest

import "syscall"

// dieWithParent makes the kernel end the server when the test process dies,
// however it dies.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
