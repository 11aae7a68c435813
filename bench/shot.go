package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The pushes that every sender sends, over and over: what an app's server would
// send, to different devices.
const (
	topic      = "com.example.app"
	pushType   = "alert"
	priority   = 10
	expiration = 2_000_000_000 // in 2033

	// payloadSize is that of DESIGN's first measurements.
	payloadSize = 113

	// shotCount is the number of different pushes. More than are in flight at
	// once, and many times more than HPACK's table of 4096 bytes holds, so to
	// the senders they are as good as all different.
	shotCount = 960
)

// shot is what differs from push to push.
type shot struct {
	token string // 64 hex digits
	id    string // a UUID
}

func shots() []shot {
	list := make([]shot, shotCount)
	for i := range list {
		sum := sha256.Sum256(fmt.Appendf(nil, "token %d", i))
		token := hex.EncodeToString(sum[:])
		t := hex.EncodeToString(sum[16:])
		list[i] = shot{token: token, id: t[:8] + "-" + t[8:12] + "-4" + t[13:16] + "-a" + t[17:20] + "-" + t[20:]}
	}
	return list
}

func payload() []byte {
	const head, tail = `{"aps":{"alert":{"title":"Title of the push","body":"`, `"},"badge":3,"sound":"default"}}`
	return []byte(head + strings.Repeat("b", payloadSize-len(head)-len(tail)) + tail)
}

// pathOf is the request's path, the same for every sender.
func pathOf(token string) string { return "/3/device/" + token }
