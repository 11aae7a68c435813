package apnslean

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// answers makes the answers of a connection.
type answers struct{ n int }

// Header blocks by HPACK's static table (RFC 7541, appendix A).
const (
	status200 = "\x88"             // index 8: ":status: 200"
	status410 = "\x08\x03" + "410" // literal without indexing, name of index 8
	status503 = "\x08\x03" + "503"

	unregistered = `{"reason":"Unregistered","timestamp":1700000000000}`
	unavailable  = `{"reason":"ServiceUnavailable"}`
)

// append appends the answer to stream's request.
func (a *answers) append(b []byte, o *Options, stream uint32) []byte {
	a.n++
	switch {
	case o.BusyEvery > 0 && a.n%o.BusyEvery == 0:
		return appendAnswer(b, stream, status503, unavailable)
	case o.GoneEvery > 0 && a.n%o.GoneEvery == 0:
		return appendAnswer(b, stream, status410, unregistered)
	}
	return appendAnswer(b, stream, status200, "")
}

func appendAnswer(b []byte, stream uint32, block, body string) []byte {
	flags := http2.FlagHeadersEndHeaders
	if body == "" {
		flags |= http2.FlagHeadersEndStream
	}
	b = appendFrame(b, http2.FrameHeaders, flags, stream, block)
	if body != "" {
		b = appendFrame(b, http2.FrameData, http2.FlagDataEndStream, stream, body)
	}
	return b
}

func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, content string) []byte {
	b = append(b, 0, 0, byte(len(content)), byte(kind), byte(flags)) // less than 256 bytes
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, content...)
}
