//go:build linux || darwin || freebsd

package jetstream

import "syscall"

// diskFree is what the disk of a folder has left for us in bytes.
func diskFree(dir string) (int64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(uint64(fs.Bavail) * uint64(fs.Bsize)), nil
}
