package apnsconn

// InferPushType returns the apns-push-type of a push whose sender named none.
// In this order:
//
//   - the topic's suffix (see TopicFor);
//   - content-state or event in aps, which only Live Activities have: liveactivity;
//   - alert, badge or sound in aps: alert;
//   - no aps, but mdm: mdm; no aps, but container-identifier: fileprovider;
//   - anything else, such as content-available alone: background.
//
// A key whose value is null counts as absent. Widgets and controls share their
// one aps key and so are known by the topic only.
//
// The payload is scanned once, without allocation and without being checked:
// of text that is not a JSON object any type may come out. A caller that knows
// the type, because the job names it or because it built the payload itself,
// need not call this at all.
func InferPushType(topic string, payload []byte) string {
	if t := pushTypeOfTopic(topic); t != nil {
		return t.name
	}
	k := scanPayload(payload)
	switch {
	case k.live:
		return "liveactivity"
	case k.visible:
		return "alert"
	case k.mdm && !k.aps:
		return "mdm"
	case k.fileProvider && !k.aps:
		return "fileprovider"
	}
	return "background"
}

// payloadKeys are the keys of a payload that tell its push type.
type payloadKeys struct {
	aps, mdm, fileProvider bool // at the top
	live, visible          bool // in aps
}

// scanPayload finds the keys of a JSON object and of its aps object by
// following quotes and brackets. A string with a colon after it is a key: no
// other string in JSON has one. Keys written with escapes are not recognized.
func scanPayload(p []byte) payloadKeys {
	var k payloadKeys
	depth := 0     // objects and arrays open
	inAps := false // the object open at depth 2 is aps
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			inAps = inAps && depth >= 2
		case '"':
			end := stringEnd(p, i+1)
			value := skipSpace(p, end+1)
			if value < len(p) && p[value] == ':' && depth <= 2 {
				value = skipSpace(p, value+1)
				k.note(p[i+1:end], p[min(value, len(p)):], depth, &inAps)
			}
			i = end
		}
	}
	return k
}

// note takes up one key; rest begins with its value.
func (k *payloadKeys) note(key, rest []byte, depth int, inAps *bool) {
	if len(rest) > 0 && rest[0] == 'n' { // null
		return
	}
	switch {
	case depth == 1:
		switch string(key) {
		case "aps":
			k.aps = true
			*inAps = len(rest) > 0 && rest[0] == '{'
		case "mdm":
			k.mdm = true
		case "container-identifier":
			k.fileProvider = true
		}
	case depth == 2 && *inAps:
		switch string(key) {
		case "alert", "badge", "sound":
			k.visible = true
		case "content-state", "event":
			k.live = true
		}
	}
}

// stringEnd returns where the quote is that ends the string beginning at i, or
// len(p).
func stringEnd(p []byte, i int) int {
	for ; i < len(p) && p[i] != '"'; i++ {
		if p[i] == '\\' {
			i++
		}
	}
	return min(i, len(p))
}

func skipSpace(p []byte, i int) int {
	for i < len(p) && (p[i] == ' ' || p[i] == '\t' || p[i] == '\n' || p[i] == '\r') {
		i++
	}
	return i
}
