// Package apnslean is a stand-in for APNs that costs as little as a server over
// TLS and HTTP/2 can, so that a measurement is one of the client. It answers 200
// to every request and looks at none: no header is decoded, nothing is checked.
// Package apnstest is the stand-in that behaves as APNs does.
//
// What it does keep account of is what a measurement needs: requests, the time
// since each was put into the queue (see Stamp), and for how long the client had
// used up its flow-control window.
package apnslean
