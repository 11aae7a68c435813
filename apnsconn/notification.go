package apnsconn

// Notification is one push: to one device, or, as a broadcast, to all devices
// that follow a channel. All fields are sent as they are, but the token in lower
// case; Validate says whether APNs could take them.
//
// A broadcast has a ChannelID and no Token. Its Topic is the app's bundle id
// without a suffix, its PushType liveactivity, its Expiration not nil (0 is the
// only one for channels that store nothing), its CollapseID empty, and its
// Payload has at most MaxPayloadBroadcast bytes.
type Notification struct {
	Token      string // device token, an even number of hex digits, 8 to 400, of either case; "" for a broadcast
	ChannelID  string // apns-channel-id of a broadcast, in Base64 as APNs gave it out; else ""
	Topic      string // apns-topic, complete with its suffix (see TopicFor)
	PushType   string // apns-push-type; always sent (see InferPushType)
	ID         string // apns-id, for a broadcast apns-request-id: a UUID in canonical form; "" lets APNs make one
	CollapseID string // apns-collapse-id, at most 64 bytes; "" omits it
	Priority   int    // apns-priority 1, 5 or 10; 0 omits it (see DefaultPriority)
	Expiration *int64 // apns-expiration in Unix seconds; 0 = do not store; nil omits it
	Payload    []byte // JSON object of at most MaxPayload bytes; must not change until the push has ended
}

// MaxPayload is how many bytes APNs takes of the payload.
func (n *Notification) MaxPayload() int { return n.typ().maxPayload }

// typ is what is known of the notification's kind of push.
func (n *Notification) typ() *pushType {
	if n.broadcast() {
		return &broadcastType
	}
	return pushTypeNamed(n.PushType)
}

// broadcast reports whether n goes to a channel.
func (n *Notification) broadcast() bool { return n.ChannelID != "" }
