package apnsconn

// Notification is one push to one device. The Payload is sent as it is.
type Notification struct {
	Token      string // device token, hex, any even length
	Topic      string // apns-topic, complete with its suffix (see TopicFor)
	PushType   string // apns-push-type; always sent
	ID         string // apns-id, a UUID in canonical form; "" lets APNs make one
	CollapseID string // apns-collapse-id, at most 64 bytes; "" omits it
	Priority   int    // apns-priority 1, 5 or 10; 0 omits it
	Expiration *int64 // apns-expiration in Unix seconds; 0 = do not store; nil omits it
	Payload    []byte // JSON body; must not change until the push has ended
}
