// Package apnsconn speaks to Apple Push Notification service (APNs).
//
// A [Conn] is one HTTP/2 connection over TLS. [Dial] opens it. [Conn.Send] takes a
// [Notification] and a callback and returns at once; the callback gets the [Outcome]: how the
// push ended and, by its [Class], what may be done with it next. [Conn.Push] does the same and
// waits.
//
// The connection neither repeats a push nor reconnects: when it has ended ([Conn.Done],
// [Conn.Err]) its owner dials another one. Every push ends exactly once. The classes NotSent
// and Unknown are kept apart exactly: a push is NotSent only if APNs cannot have processed it.
//
// # Sending
//
// [ServerAddr] returns the address for Config.Addr. Fill in a [Notification]; [TopicFor],
// [InferPushType] and [DefaultPriority] help with the headers that Apple wants. Then let
// [Notification.Validate] say what APNs would refuse: refusals make APNs slow a connection
// down.
//
// Push is for a few at a time, each from its own goroutine. Send is for many from one
// goroutine: [Conn.Free] is how many would leave at once, and Config.OnChange is called when
// that number may have grown. A caller that sends no more than Free never has pushes waiting
// inside the connection. A caller that sends more, up to Config.InFlight, has them wait in
// order while their PushTimeout runs.
//
// A new connection takes as many pushes at once as APNs' SETTINGS allow: often 1000, and with
// a provider token 1 until the first good answer. That number can fall at any time, even to 0.
//
// # Outcomes
//
// Class says what may be done next:
//
//	Delivered    nothing: APNs has it
//	Token        forget the device token (410: Since says since when it is dead)
//	Rejected     nothing: the push itself is at fault, see Reason
//	Throttled    send it again later; only this device token is meant
//	Unavailable  send it again later, each time later than before
//	Credential   stop: no push will work until the certificate or key is replaced
//	NotSent      send it again, on this connection or another
//	Unknown      send it again only if a duplicate does less harm than a loss
//
// [Outcome.Reason] is APNs' own word, and [ReasonText] explains it.
//
// A push is NotSent if Send refused it, if it was cancelled or timed out before its last byte
// was handed to the network (a peer that closes its flow-control windows can cause that), if
// the server refused it (REFUSED_STREAM, or a GOAWAY with a lower stream), or if it was part
// of a write that failed before the TLS record with its end was complete. Every other push
// without an answer is Unknown. That includes a push that timed out during the write that it
// was part of: how far that write came is known only afterwards.
//
// # The end of a connection
//
// A connection that is about to end stops taking pushes (Usable, Free, OnChange), returns those that
// wait inside as NotSent, lets the others end within Config.DrainTimeout, and then ends (Done).
// It does so when
//
//   - APNs sends GOAWAY ([GoAwayError]);
//   - an answer says that the connection is at fault ([Outcome.Reconnect]), or three answers
//     in a row have status 500;
//   - two pushes in a row time out and no other has been answered since, a PING is not
//     answered, or a write makes no progress;
//   - the connection is lost;
//   - the peer breaks HTTP/2.
//
// Err returns the first reason. If errors.Is(err, [ErrCredential]), or Dial fails with that
// error, dial again only with another credential.
//
// The owner dials again when there is something to send, one connection at a time. After a
// failure it waits, longer each time and with jitter: Apple takes fast reconnects for an attack.
//
// # Bounds
//
// Config.InFlight bounds the pushes in a connection, and its timeouts bound every wait. An
// answer may have 4 KiB of body and 8 KiB of headers; a longer one is malformed. A peer that
// causes endless work (PING, SETTINGS, header blocks) is disconnected with ENHANCE_YOUR_CALM. An
// idle connection keeps no write buffers.
//
// No error of this package holds a payload, a whole device token or a key.
//
// # Credentials
//
// A connection has either a client certificate ([LoadCertificate], Config.Certificate) or the
// provider tokens of a key ([LoadKey], [NewProviderToken], Config.Token). Make one
// [ProviderToken] for each key and share it between all connections: it renews its tokens at
// the pace that Apple wants, and each connection keeps a token for as long as Apple wants.
//
// # How it works
//
// Each connection has three goroutines. connLoop owns the other two, watches deadlines and
// silence, and cleans up at the end (life.go). The reader turns frames into outcomes (reader.go,
// answer.go). The writer takes the waiting pushes, as far as the stream limit and the peer's
// windows allow, and writes them in batches (writer.go, header.go). All state is in Conn, under
// one mutex that is never held during a callback or network call.
//
// A push waits as a plain list entry until the writer encodes it, immediately before its bytes
// go to the network. Until then it can be withdrawn without a trace, and "never written" is
// known for certain. A request that has not been written to its end is not a request yet
// (life.go). When a write fails, crypto/tls says how many bytes went out in whole records. The
// peer cannot use part of a record, so what ends behind those bytes was not sent (writer.go).
//
// # Tests
//
// Package apnstest is APNs for tests: the examples below run against it.
package apnsconn
