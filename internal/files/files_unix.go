//go:build unix

package files

import "golang.org/x/sys/unix"

// ownFlags: a pipe is not waited for, and no link is followed.
const ownFlags = unix.O_NONBLOCK | unix.O_NOFOLLOW

// MaxOpen is how many descriptors the process may have; 0: unknown.
func MaxOpen() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur)
}
