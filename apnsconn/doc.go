// Package apnsconn speaks to Apple Push Notification service (APNs).
//
// A [Conn] is one HTTP/2 connection over TLS. [Dial] opens it, [Conn.Send]
// hands over a [Notification] and a callback and returns at once, and the
// callback gets the [Outcome]: what became of the push and, by its [Class],
// what may be done with it next. [Conn.Push] does the same and waits.
//
// The connection repeats nothing and reconnects never: when it has ended
// ([Conn.Done], [Conn.Err]) its owner dials another one. Every push ends
// exactly once. The classes NotSent and Unknown are kept apart exactly: a push
// is NotSent only if APNs cannot have processed it.
//
// # Credentials
//
// A connection has either a client certificate ([LoadCertificate],
// Config.Certificate) or the provider tokens of a key ([LoadKey],
// [NewProviderToken], Config.Token). Make one [ProviderToken] for each key and
// give it to all connections: it renews its tokens at the pace that Apple wants,
// and each connection keeps to one token for as long as Apple wants.
//
// # How it works
//
// Each connection has three goroutines. The keeper owns the other two, watches
// deadlines and silence, and sees the connection to its end (keeper.go). The
// reader turns frames into outcomes (reader.go, answer.go). The writer takes
// the pushes that wait, as far as the stream limit and the windows of the peer
// allow, and writes them in batches (writer.go, header.go). All state is in
// Conn, under one mutex that is never held during a callback or network call.
//
// A push waits as a plain list entry until the writer encodes it, immediately
// before its bytes go to the network. That is why it can be withdrawn without
// a trace until then, and why "never written" is known for certain.
package apnsconn
