package apnsconn

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

const (
	devicePath    = "/3/device/"
	broadcastPath = "/4/broadcasts/apps/"
)

// headerEncoder turns notifications into HPACK header blocks.
//
// What repeats from push to push (authority, provider token, topic, push type, priority) goes
// through the dynamic table and costs a byte each. What does not (path, id)
// must stay out of it, or it would push the others out; it is written as "never
// indexed", which also tells intermediaries to leave it alone (RFC 7541 §7.1.3).
// Measured: 90 bytes per block with a 64-digit token, topic, push type, priority
// and id, of which path and id take 84.
type headerEncoder struct {
	authority     string
	authorization string // with the provider token; "" without one

	enc        *hpack.Encoder
	block      frameBuffer // what enc writes to
	changes    int         // how often the dynamic table has changed
	repeated   repeated
	id         varying
	expiration varying
	collapse   varying
	channel    varying
	requestID  varying

	expirationValue int64  // the last one, and
	expirationText  string // its digits, which are the same for many pushes in a row
}

// varying is a header whose value is often another one each time, while its
// name is always the same. To have the name in the dynamic table one value must
// go there with it: the first, and another when that has been evicted. Of the
// rest only those that come twice in a row are worth an entry.
type varying struct {
	name  string
	named bool // the table holds the name, as far as is known
	last  string

	// What a literal began with the last time: the name's index. It is good
	// until the table changes.
	prefix        []byte
	prefixChanges int
}

func newHeaderEncoder(authority string) *headerEncoder {
	h := &headerEncoder{
		authority:  authority,
		id:         varying{name: "apns-id"},
		expiration: varying{name: "apns-expiration"},
		collapse:   varying{name: "apns-collapse-id"},
		channel:    varying{name: "apns-channel-id"},
		requestID:  varying{name: "apns-request-id"},
	}
	h.enc = hpack.NewEncoder(&h.block)
	return h
}

// maxTableSize bounds the dynamic table, whatever larger one the peer offers:
// 4096 is HTTP/2's default, APNs' setting, and room for some 60 entries.
const maxTableSize = 4096

// setTableSize follows the peer's HEADER_TABLE_SIZE. It always goes by way of an
// empty table: of two changes between header blocks the smaller has to be told
// too (RFC 7541 §4.2), and x/net's decoder, hence any server in Go, takes that
// for an error unless it empties the table.
func (h *headerEncoder) setTableSize(v uint32) {
	v = min(v, maxTableSize)
	if v == h.enc.MaxDynamicTableSize() {
		return
	}
	h.enc.SetMaxDynamicTableSize(0)
	h.enc.SetMaxDynamicTableSize(v)
	h.changes++
}

// encode returns n's header block, valid until the next call.
func (h *headerEncoder) encode(n *Notification) []byte {
	h.block.b = h.block.b[:0]
	id := &h.id
	switch {
	case n.broadcast():
		id = &h.requestID
		h.authorityFields()
		// The path is the app's, the same for all its broadcasts.
		h.field(hpack.HeaderField{Name: ":path", Value: broadcastPath + n.Topic})
		h.varying(&h.channel, n.ChannelID)
		h.pushFields(n)
	case h.repeated.of(h, n):
		h.block.b = append(h.block.b, h.repeated.before...)
		h.devicePath(n.Token)
		h.block.b = append(h.block.b, h.repeated.behind...)
	default:
		changes := h.changes
		h.authorityFields()
		path := len(h.block.b)
		h.devicePath(n.Token)
		behind := len(h.block.b)
		if n.Topic != "" {
			h.field(hpack.HeaderField{Name: "apns-topic", Value: n.Topic})
		}
		h.pushFields(n)
		if changes == h.changes {
			h.repeated.set(h, n, h.block.b[:path], h.block.b[behind:])
		}
	}
	if n.ID != "" {
		h.varying(id, n.ID)
	}
	if n.Expiration != nil {
		h.varying(&h.expiration, h.digits(*n.Expiration))
	}
	if n.CollapseID != "" {
		h.varying(&h.collapse, n.CollapseID)
	}
	return h.block.b
}

// authorityFields writes what every block begins with.
func (h *headerEncoder) authorityFields() {
	h.field(hpack.HeaderField{Name: ":authority", Value: h.authority}) // first, for it brings a new table size along
	h.block.b = append(h.block.b, methodPost, schemeHTTPS)
}

// pushFields writes what mostly is the same from push to push.
func (h *headerEncoder) pushFields(n *Notification) {
	if h.authorization != "" {
		h.field(hpack.HeaderField{Name: "authorization", Value: h.authorization})
	}
	if n.PushType != "" {
		h.field(hpack.HeaderField{Name: "apns-push-type", Value: n.PushType})
	}
	if n.Priority != 0 {
		h.field(hpack.HeaderField{Name: "apns-priority", Value: strconv.Itoa(n.Priority)})
	}
}

// repeated is what encode wrote around the path of a push to a device. All of it
// is indexes into the tables, so it can be copied for the next push that has
// the same fields, as long as the dynamic table has not changed.
type repeated struct {
	changes                        int
	authorization, topic, pushType string
	priority                       int
	before, behind                 []byte
}

func (r *repeated) of(h *headerEncoder, n *Notification) bool {
	return len(r.before) > 0 && r.changes == h.changes && r.priority == n.Priority &&
		r.topic == n.Topic && r.pushType == n.PushType && r.authorization == h.authorization
}

func (r *repeated) set(h *headerEncoder, n *Notification, before, behind []byte) {
	r.changes, r.authorization, r.topic, r.pushType, r.priority = h.changes, h.authorization, n.Topic, n.PushType, n.Priority
	r.before = append(r.before[:0], before...)
	r.behind = append(r.behind[:0], behind...)
}

// Fields of HPACK's static table (RFC 7541, appendix A), written as they are: the
// encoder would look each up again.
const (
	methodPost  = 0x80 | 3
	schemeHTTPS = 0x80 | 7
	neverPath   = 0x10 | 4 // :path, never indexed, the value follows
)

// devicePath writes the :path of a push to a device, whose token is in lower case there.
func (h *headerEncoder) devicePath(token string) {
	for i := 0; i < len(token); i++ {
		if 'A' <= token[i] && token[i] <= 'Z' {
			token = strings.ToLower(token)
			break
		}
	}
	h.block.b = appendString(append(h.block.b, neverPath), devicePath+token)
}

// indexLen is the length of the name's index that a literal never to be indexed
// begins with: an integer with a prefix of 4 bits (RFC 7541 §5.1).
func indexLen(literal []byte) int {
	if literal[0]&0x0f != 0x0f {
		return 1
	}
	n := 2
	for literal[n-1]&0x80 != 0 {
		n++
	}
	return n
}

// appendString writes a string literal, Huffman-coded if that is shorter: its
// length, an integer with a prefix of 7 bits, and before these one that tells
// which (RFC 7541 §5.1, §5.2).
func appendString(b []byte, s string) []byte {
	const huffman, most = 0x80, 0x7f
	n, kind := hpack.HuffmanEncodeLength(s), byte(huffman)
	if n >= uint64(len(s)) {
		n, kind = uint64(len(s)), 0
	}
	if n < most {
		b = append(b, kind|byte(n))
	} else {
		b = append(b, kind|most)
		rest := n - most
		for ; rest >= 0x80; rest >>= 7 {
			b = append(b, 0x80|byte(rest&0x7f))
		}
		b = append(b, byte(rest))
	}
	if kind == 0 {
		return append(b, s...)
	}
	return hpack.AppendHuffmanString(b, s)
}

// field writes f. What it begins with tells whether that changed the dynamic
// table: a literal to be indexed (01…, RFC 7541 §6.2.1), or a new size of the
// table (001…, §6.3) in front.
func (h *headerEncoder) field(f hpack.HeaderField) {
	start := len(h.block.b)
	_ = h.enc.WriteField(f) // to memory
	if first := h.block.b[start]; first&0xc0 == 0x40 || first&0xe0 == 0x20 {
		h.changes++
	}
}

// varying writes v with value. The encoder does not tell whether it knows a
// name, but the byte it begins with does: the low four bits are the name's
// index, and 0 means a name in full (RFC 7541 §6.2.3).
func (h *headerEncoder) varying(v *varying, value string) {
	start := len(h.block.b)
	literal := v.named && value != v.last
	if literal && len(v.prefix) > 0 && v.prefixChanges == h.changes {
		h.block.b = appendString(append(h.block.b, v.prefix...), value)
		v.last = value
		return
	}
	h.field(hpack.HeaderField{Name: v.name, Value: value, Sensitive: literal})
	v.named = !literal || h.block.b[start]&0x0f != 0
	v.prefix = v.prefix[:0]
	if literal && v.named {
		v.prefix = append(v.prefix, h.block.b[start:start+indexLen(h.block.b[start:])]...)
		v.prefixChanges = h.changes
	}
	v.last = value
}

func (h *headerEncoder) digits(v int64) string {
	if h.expirationText == "" || v != h.expirationValue {
		h.expirationValue, h.expirationText = v, strconv.FormatInt(v, 10)
	}
	return h.expirationText
}

// fieldOverhead is what each field counts beyond its name and value
// (RFC 9113 §6.5.2, MAX_HEADER_LIST_SIZE).
const fieldOverhead = 32

// listSize is the size of n's header list as the peer counts it, or a little
// more.
func (h *headerEncoder) listSize(n *Notification) uint64 {
	const names = len(":method"+"POST"+":scheme"+"https"+":authority"+":path"+broadcastPath+
		"apns-channel-id"+"apns-push-type"+"apns-priority"+"10"+"apns-request-id"+"apns-collapse-id") + 9*fieldOverhead
	size := names + len(h.authority) + len("authorization") + len(h.authorization) + fieldOverhead + len(n.Token) + len(n.ChannelID) + len(n.Topic) + len(n.PushType) + len(n.ID) + len(n.CollapseID)
	if n.Expiration != nil {
		size += len("apns-expiration") + len("-9223372036854775808") + fieldOverhead
	}
	return uint64(size)
}

// checkHeaders refuses what no header may hold. HTTP/2 carries such bytes
// without confusing anybody's framing, but the peer may take them as a fault of
// the connection, at the cost of all other pushes on it. The meaning of the
// values is Notification.Validate's matter.
func checkHeaders(n *Notification) error {
	for i := 0; i < len(n.Token); i++ {
		if !tokenChars[n.Token[i]] {
			return &FieldError{"token", fmt.Sprintf("has the character %q", n.Token[i])}
		}
	}
	if len(n.Token) > maxHeaderValue {
		return &FieldError{"token", fmt.Sprintf("has %d bytes, at most %d are allowed", len(n.Token), maxHeaderValue)}
	}
	for _, f := range [...]struct{ key, value string }{
		{"channel_id", n.ChannelID},
		{"topic", n.Topic},
		{"push_type", n.PushType},
		{"id", n.ID},
		{"collapse_id", n.CollapseID},
	} {
		if len(f.value) > maxHeaderValue {
			return &FieldError{f.key, fmt.Sprintf("has %d bytes, at most %d are allowed", len(f.value), maxHeaderValue)}
		}
		if f.value != "" && (f.value[0] == ' ' || f.value[len(f.value)-1] == ' ') {
			return &FieldError{f.key, "begins or ends with a space"}
		}
		for i := 0; i < len(f.value); i++ {
			if b := f.value[i]; b < ' ' || b > '~' {
				return &FieldError{f.key, fmt.Sprintf("has the character %q", b)}
			}
		}
	}
	if n.broadcast() {
		return checkBroadcast(n)
	}
	return nil
}

// checkBroadcast refuses what would make another request than was meant: the
// topic is in the path.
func checkBroadcast(n *Notification) error {
	if n.Token != "" {
		return &FieldError{"token", "cannot stand beside a channel id"}
	}
	for i := 0; i < len(n.Topic); i++ {
		if b := n.Topic[i]; !isTokenChar(b) && b != '.' {
			return &FieldError{"topic", fmt.Sprintf("has the character %q, which no bundle id has", b)}
		}
	}
	return nil
}

// maxHeaderValue bounds one value, in bytes. APNs takes 8000 of headers in all.
const maxHeaderValue = 4096

func isTokenChar(b byte) bool { return tokenChars[b] }

// tokenChars are the characters of device tokens, and '-' and '_': a table
// because each push's token goes through it. Never written to.
var tokenChars = func() (chars [256]bool) {
	for b := range chars {
		chars[b] = '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '-' || b == '_'
	}
	return chars
}()
