//go:build unix

package files

import "syscall"

// ownFlags: what is no file is not waited for, and no link is followed.
const ownFlags = syscall.O_NONBLOCK | syscall.O_NOFOLLOW
