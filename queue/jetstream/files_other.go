//go:build !unix

package jetstream

// maxFiles is how many descriptors the process may have; 0: nobody knows.
func maxFiles() uint64 { return 0 }
