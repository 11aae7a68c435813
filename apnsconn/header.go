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
// Fields that repeat from push to push (authority, provider token, topic, push type, priority)
// go through the dynamic table and cost one byte each. Fields that do not (path, id) must stay
// out of it, or they would evict the others. They are written as "never indexed", which also
// tells intermediaries not to index them (RFC 7541 §7.1.3). Measured: a block with a 64-digit
// token, topic, push type, priority and id has 90 bytes, 84 of them for path and id.
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

	expirationValue int64  // the last one, often the same for many pushes in a row
	expirationText  string // its digits
}

// varying is a header whose value often differs from push to push. Its name should be in the
// dynamic table, which takes one value with it: the first value, and another one when that has
// been evicted. Of the other values only one that comes twice in a row is worth an entry.
type varying struct {
	name  string
	named bool // the table holds the name, as far as is known
	last  string

	// The name's index, with which the last literal began. It is valid until the table changes.
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

// maxTableSize bounds the dynamic table, even if the peer offers a larger one: 4096 is HTTP/2's
// default and APNs' setting, and has room for some 60 entries.
const maxTableSize = 4096

// setTableSize applies the peer's HEADER_TABLE_SIZE. It always empties the table first: of two
// changes between header blocks the smaller must be signalled too (RFC 7541 §4.2), and x/net's
// decoder, which servers in Go use, takes that for an error unless it empties the table.
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
		// All broadcasts of an app have the same path.
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

// authorityFields writes the fields that every block begins with.
func (h *headerEncoder) authorityFields() {
	h.field(hpack.HeaderField{Name: ":authority", Value: h.authority}) // first, because it signals a new table size
	h.block.b = append(h.block.b, methodPost, schemeHTTPS)
}

// pushFields writes the fields that are mostly the same from push to push.
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

// repeated is what encode wrote around the path of a push to a device. It consists of indexes
// into the tables, so it can be copied for the next push with the same fields, as long as the
// dynamic table has not changed.
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

// Fields of HPACK's static table (RFC 7541, appendix A), written directly: the encoder would
// look each of them up again.
const (
	methodPost  = 0x80 | 3
	schemeHTTPS = 0x80 | 7
	neverPath   = 0x10 | 4 // :path, never indexed, the value follows
)

// devicePath writes the :path of a push to a device, with the token in lower case.
func (h *headerEncoder) devicePath(token string) {
	for i := 0; i < len(token); i++ {
		if 'A' <= token[i] && token[i] <= 'Z' {
			token = strings.ToLower(token)
			break
		}
	}
	h.block.b = appendString(append(h.block.b, neverPath), devicePath+token)
}

// indexLen is the length of the name's index with which a never-indexed literal begins: an
// integer with a prefix of 4 bits (RFC 7541 §5.1).
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

// appendString writes a string literal, Huffman-coded if that is shorter: one bit that says so,
// the length as an integer with a prefix of 7 bits, and the text (RFC 7541 §5.1, §5.2).
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

// field writes f. The first byte shows whether that changed the dynamic table: an indexed
// literal (01…, RFC 7541 §6.2.1), or a new table size (001…, §6.3) before the field.
func (h *headerEncoder) field(f hpack.HeaderField) {
	start := len(h.block.b)
	_ = h.enc.WriteField(f) // to memory
	if first := h.block.b[start]; first&0xc0 == 0x40 || first&0xe0 == 0x20 {
		h.changes++
	}
}

// varying writes v with value. The encoder does not say whether it knows a name, but the first
// byte does: its low four bits are the name's index, and 0 means that the name follows in full
// (RFC 7541 §6.2.3).
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

// fieldOverhead is what each field counts in addition to its name and value
// (RFC 9113 §6.5.2, MAX_HEADER_LIST_SIZE).
const fieldOverhead = 32

// listSize is the size of n's header list as the peer counts it, or slightly more.
func (h *headerEncoder) listSize(n *Notification) uint64 {
	const names = len(":method"+"POST"+":scheme"+"https"+":authority"+":path"+broadcastPath+
		"apns-channel-id"+"apns-push-type"+"apns-priority"+"10"+"apns-request-id"+"apns-collapse-id") + 9*fieldOverhead
	size := names + len(h.authority) + len("authorization") + len(h.authorization) + fieldOverhead + len(n.Token) + len(n.ChannelID) + len(n.Topic) + len(n.PushType) + len(n.ID) + len(n.CollapseID)
	if n.Expiration != nil {
		size += len("apns-expiration") + len("-9223372036854775808") + fieldOverhead
	}
	return uint64(size)
}

// checkHeaders refuses values that no header may have. They would not break HTTP/2's framing,
// but the peer may take them for a fault of the connection, which costs all other pushes on it.
// What the values mean is checked by Notification.Validate.
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

// checkBroadcast refuses values that would change the request: the topic is part of the path.
func checkBroadcast(n *Notification) error {
	if n.Token != "" {
		return &FieldError{"token", "cannot be given together with a channel id"}
	}
	for i := 0; i < len(n.Topic); i++ {
		if b := n.Topic[i]; !isTokenChar(b) && b != '.' {
			return &FieldError{"topic", fmt.Sprintf("has the character %q, which bundle ids never have", b)}
		}
	}
	return nil
}

// maxHeaderValue bounds one value, in bytes. APNs accepts 8000 bytes of headers in all.
const maxHeaderValue = 4096

func isTokenChar(b byte) bool { return tokenChars[b] }

// tokenChars are the characters of device tokens, and '-' and '_'. It is a table because every
// push's token is checked against it; it is never written to.
var tokenChars = func() (chars [256]bool) {
	for b := range chars {
		chars[b] = '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '-' || b == '_'
	}
	return chars
}()
