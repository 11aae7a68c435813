package apnsconn

import "syscall"

// dieWithParent makes the kernel end a child when the test process dies, however
// it dies.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
