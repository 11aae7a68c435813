//go:build !unix

package files

const ownFlags = 0
