package apnsconn

// Notification is one push to one device. All fields are sent as they are,
// but the token in lower case; Validate says whether APNs could take them.
type Notification struct {
	Token      string // device token, an even number of hex digits, 8 to 400, of either case
	Topic      string // apns-topic, complete with its suffix (see TopicFor)
	PushType   string // apns-push-type; always sent (see InferPushType)
	ID         string // apns-id, a UUID in canonical form; "" lets APNs make one
	CollapseID string // apns-collapse-id, at most 64 bytes; "" omits it
	Priority   int    // apns-priority 1, 5 or 10; 0 omits it (see DefaultPriority)
	Expiration *int64 // apns-expiration in Unix seconds; 0 = do not store; nil omits it
	Payload    []byte // JSON object of at most MaxPayload bytes; must not change until the push has ended
}
