//go:build !unix

package jetstream

const ownFlags = 0
