//go:build !unix

package files

const ownFlags = 0

// MaxOpen is how many descriptors the process may have; 0: unknown.
func MaxOpen() uint64 { return 0 }
