// Package jetstream is the queue adapter for NATS JetStream, on
// github.com/nats-io/nats.go: a server inside this process (embedded://), or a
// cluster (nats://, tls://). Both are the same code and differ by a URL.
package jetstream
