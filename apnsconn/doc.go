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
// # Sending
//
// [ServerAddr] has the address for Config.Addr. Fill in a [Notification] —
// [TopicFor], [InferPushType] and [DefaultPriority] help with what Apple wants to
// be told about it — and let [Notification.Validate] say what APNs would refuse:
// refusals make APNs slow a connection down.
//
// Push is for a few at a time, each from a goroutine of its own. Send is for many
// from one goroutine: [Conn.Free] is how many would leave at once, and
// Config.OnChange is called when there may be more. A caller who sends no more than
// Free never has pushes waiting in the connection. One who sends more, up to
// Config.InFlight, has them wait in order, while their PushTimeout runs.
//
// A new connection takes as many pushes at once as APNs' SETTINGS allow: often
// 1000, and with a provider token 1 until the first good answer. That number can
// fall at any time, to 0 even.
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
//	Credential   stop: no push will do until the certificate or key is replaced
//	NotSent      send it again, on this connection or another
//	Unknown      send it again only if a duplicate does less harm than a loss
//
// [Outcome.Reason] is APNs' own word and [ReasonText] explains it.
//
// NotSent is what was refused by Send, withdrawn or given up before its last byte
// was handed to the network (a peer that shuts its flow-control windows can cause that),
// refused by the server (REFUSED_STREAM, a GOAWAY with a
// lower stream), or part of a write that failed before the TLS record in which it
// ends was complete. Unknown is all else that got no answer, also a push that
// timed out while the write it is part of was under way: how far that came is
// only known afterwards.
//
// # The end of a connection
//
// A connection stops taking pushes (Usable, Free, OnChange), gives those that wait
// inside back as NotSent, lets the others end, for Config.DrainTimeout at most, and
// then ends (Done). It does so when APNs sends GOAWAY ([GoAwayError]); when an
// answer says that the connection is at fault ([SuspectError]), or three in a
// row have status 500; when two pushes in a row time out and no other has been
// answered since, a PING is not answered or a write makes no progress; when it is lost; and when the peer breaks
// HTTP/2. Err has the first reason. If errors.Is(err, [ErrCredential]), or Dial
// fails with it, dialling again is no use until the credential is another one.
//
// The owner dials again when there is something to send, one connection at a
// time, and after a failure waits, longer each time and with some chance in it:
// Apple takes fast reconnects for an attack.
//
// # Bounds
//
// Config.InFlight bounds the pushes in a connection, its timeouts all that is
// waited for. Of an answer 4 KiB of body and 8 KiB of headers are taken, beyond
// which it is malformed. A peer that asks for work for nothing (PING, SETTINGS,
// header blocks without end) is left with ENHANCE_YOUR_CALM. An idle connection
// keeps no write buffers.
//
// Payloads, whole device tokens and keys are in no error of this package.
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
// Each connection has three goroutines. The connLoop owns the other two, watches
// deadlines and silence, and sees the connection to its end (life.go). The
// reader turns frames into outcomes (reader.go, answer.go). The writer takes
// the pushes that wait, as far as the stream limit and the windows of the peer
// allow, and writes them in batches (writer.go, header.go). All state is in
// Conn, under one mutex that is never held during a callback or network call.
//
// A push waits as a plain list entry until the writer encodes it, immediately
// before its bytes go to the network. That is why it can be withdrawn without
// a trace until then, and why "never written" is known for certain. What has not
// been written to its end is no request yet (life.go). When a write
// fails, crypto/tls says how many bytes went out in whole records; the peer can
// use no part of a record, so what ends behind them was not sent (writer.go).
//
// # Tests
//
// Package apnstest is APNs for tests: the examples below run against it.
package apnsconn
