// Package apnstest is a stand-in for Apple Push Notification service (APNs),
// for tests, demonstrations and measurements. It is used the way
// net/http/httptest is:
//
//	srv := apnstest.NewServer(apnstest.Options{})
//	defer srv.Close()
//	// dial srv.Addr with RootCAs: srv.CertPool(),
//	// Certificates: {srv.ClientCert("com.example.app")}
//
// It speaks real TLS and HTTP/2, written at the level of frames on
// golang.org/x/net/http2.Framer and hpack, so that it can misbehave exactly
// where a test wants it to, and so that it costs little beside the client
// that is being measured.
//
// # Good behaviour
//
// Left alone it does what Apple documents: it announces 1000 streams, a
// window of 65535 bytes and a header list of 8000, asks for a client
// certificate without insisting on it, checks each request the way APNs does
// and answers with Apple's status and reason ([Options.NoValidation] turns the
// checks off). A request with neither client certificate nor provider token
// is answered 403 MissingProviderToken unless [Options.AllowAnonymous] is set.
// The checks are written independently of package apnsconn, as a second
// opinion on the rules.
//
// # Misbehaviour
//
// A [Script] decides the answer to each valid request: any status, reason or
// body, a delay, silence, RST_STREAM, something to do to the connection
// afterwards. [Server.EachConn] and the methods of [Conn] act on open
// connections at any moment: SETTINGS, GOAWAY, PING, raw frames, withheld
// WINDOW_UPDATEs, silence, and the ways a connection can be lost.
// [Options] holds the faults of a connection's beginning.
//
// # What was seen
//
// [Server.Requests] returns what arrived, in order; [Server.Wait] waits for it;
// [Server.Stats] counts; [Server.Violations] lists what the client did against
// the rules of HTTP/2.
//
// # Programs in other languages
//
// [ParseFault] reads faults from text, such as "status=503,rate=0.01", and the
// script [TokenCodes] lets the device token choose the answer, for clients
// that cannot be scripted otherwise.
package apnstest
