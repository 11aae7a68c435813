//go:build unix

package jetstream

import "syscall"

// maxFiles is how many descriptors the process may have; 0: nobody knows.
func maxFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur)
}
