package apnsconn

import (
	"slices"
	"strings"

	"propeller/internal/rawjson"
)

// The most bytes of a payload that APNs accepts (Apple: sending-notification-requests-to-apns,
// generating-a-remote-notification).
const (
	// MaxPayload is the limit of every push type but voip.
	MaxPayload = 4096
	// MaxPayloadVoIP is the limit of voip.
	MaxPayloadVoIP = 5120
	// maxPayloadBroadcast is the limit of broadcasts
	// (Apple: sending-broadcast-push-notification-requests-to-apns).
	maxPayloadBroadcast = 5120
)

// pushType is what is known about one apns-push-type.
type pushType struct {
	name       string
	suffix     string // of the topic, after the bundle id; "" for none
	priorities []int  // those allowed; nil for 1, 5 and 10
	maxPayload int    // bytes
	tokenOnly  bool   // needs a provider token: certificates do not work
}

// pushTypes are the types that Apple documents. The list is open: other types pass through, and
// APNs answers InvalidPushType to those that it does not know.
//
// Apple: sending-notification-requests-to-apns, pushing-background-updates-to-your-app,
// starting-and-updating-live-activities-with-activitykit-push-notifications,
// updating-controls-locally-and-remotely, updating-widgets-with-widgetkit-push-notifications.
var pushTypes = [...]pushType{
	{name: "alert", maxPayload: MaxPayload},
	{name: "background", priorities: []int{5}, maxPayload: MaxPayload},
	{name: "voip", suffix: ".voip", maxPayload: MaxPayloadVoIP},
	{name: "complication", suffix: ".complication", maxPayload: MaxPayload},
	{name: "fileprovider", suffix: ".pushkit.fileprovider", maxPayload: MaxPayload},
	{name: "mdm", maxPayload: MaxPayload}, // its topic is the UID of the MDM certificate, not a bundle id
	{name: "location", suffix: ".location-query", priorities: []int{5, 10}, maxPayload: MaxPayload, tokenOnly: true},
	{name: "liveactivity", suffix: ".push-type.liveactivity", priorities: []int{5, 10}, maxPayload: MaxPayload},
	{name: "pushtotalk", suffix: ".voip-ptt", maxPayload: MaxPayload},
	{name: "widgets", suffix: ".push-type.widgets", priorities: []int{5, 10}, maxPayload: MaxPayload},
	{name: "controls", suffix: ".push-type.controls", priorities: []int{5, 10}, maxPayload: MaxPayload},
}

// otherPushType stands for types that Apple does not document (yet). Only APNs knows their
// limits, so the widest ones apply.
var otherPushType = pushType{maxPayload: MaxPayloadVoIP}

// broadcastType is for a push to a channel. Apple's page on broadcasts names low, medium and
// high priority; a Live Activity on one device has only two of them.
var broadcastType = pushType{name: "liveactivity", maxPayload: maxPayloadBroadcast}

// pushTypeNamed returns what is known about a type. Its result must not be changed.
func pushTypeNamed(name string) *pushType {
	for i := range pushTypes {
		if pushTypes[i].name == name {
			return &pushTypes[i]
		}
	}
	return &otherPushType
}

// pushTypeOfTopic returns the type with the topic's suffix, or nil.
func pushTypeOfTopic(topic string) *pushType {
	for i := range pushTypes {
		if t := &pushTypes[i]; t.suffix != "" && strings.HasSuffix(topic, t.suffix) {
			return t
		}
	}
	return nil
}

// allows reports whether a push of this type may have the priority. 0, which omits the header,
// always is.
func (t *pushType) allows(priority int) bool {
	if t.priorities != nil {
		return priority == 0 || slices.Contains(t.priorities, priority)
	}
	return priority == 0 || priority == 1 || priority == 5 || priority == 10
}

// TopicFor returns the apns-topic of a push to an app: the bundle id with the suffix of the push
// type, for example "com.example.app.voip". It returns bundle unchanged if it already has the
// suffix, or if the type has none or is unknown.
func TopicFor(bundle, pushType string) string {
	suffix := pushTypeNamed(pushType).suffix
	if suffix == "" || strings.HasSuffix(bundle, suffix) {
		return bundle
	}
	return bundle + suffix
}

// TokenOnly reports whether pushes of a type need a provider token: certificates do not work
// for them.
func TokenOnly(pushType string) bool { return pushTypeNamed(pushType).tokenOnly }

// Meant returns the word that equals given except for case, and for hyphens and the like between
// its parts; "" if there is no such word or given is one of the words. It is called for each
// Live Activity.
func Meant(given string, words []string) string {
	if slices.Contains(words, given) {
		return ""
	}
	plain := joined.Replace(given)
	for _, word := range words {
		if len(given) <= 2*len(word) && strings.EqualFold(plain, joined.Replace(word)) {
			return word
		}
	}
	return ""
}

// joined removes what separates the parts of a word. It is never changed.
var joined = strings.NewReplacer("-", "", "_", "", " ", "", ".", "")

// typeMeant is Meant for push types.
func typeMeant(given string) string {
	var names []string
	for i := range pushTypes {
		names = append(names, pushTypes[i].name)
	}
	return Meant(given, names)
}

// DefaultPriority returns the priority for a push whose sender named none: 5 for background,
// which allows no other while APNs takes an absent priority for 10; else 0, which omits the
// header.
func DefaultPriority(pushType string) int {
	if pushType == "background" {
		return 5
	}
	return 0
}

// InferPushType returns the apns-push-type for a push whose sender named none. It looks, in this
// order, for
//
//   - the topic's suffix (see TopicFor);
//   - content-state or event in aps, which only Live Activities have: liveactivity;
//   - alert, badge or sound in aps: alert;
//   - no aps, but mdm: mdm; no aps, but container-identifier: fileprovider;
//   - anything else, such as content-available alone: background.
//
// A key whose value is null counts as absent. Widgets and controls have the same single aps
// key, so only the topic tells them apart.
//
// Keys written with escapes are not recognized. For text that is not a JSON object the result
// is undefined. A caller that knows the type need not call this at all.
func InferPushType(topic string, payload []byte) string {
	if t := pushTypeOfTopic(topic); t != nil {
		return t.name
	}
	k := keysOf(payload)
	return k.PushType(topic)
}

// PayloadKeys are the keys of a payload that show its push type.
type PayloadKeys struct {
	APS, MDM, FileProvider bool // at the top
	Live, Visible          bool // in aps
}

// PushType is InferPushType for a payload with these keys.
func (k *PayloadKeys) PushType(topic string) string {
	if t := pushTypeOfTopic(topic); t != nil {
		return t.name
	}
	switch {
	case k.Live:
		return "liveactivity"
	case k.Visible:
		return "alert"
	case k.MDM && !k.APS:
		return "mdm"
	case k.FileProvider && !k.APS:
		return "fileprovider"
	}
	return "background"
}

// NoteAPS notes one key of aps and its value, which is JSON.
func (k *PayloadKeys) NoteAPS(name string, value []byte) {
	if value[0] == 'n' { // null
		return
	}
	switch name {
	case "alert", "badge", "sound":
		k.Visible = true
	case "content-state", "event":
		k.Live = true
	}
}

// keysOf finds the keys of a JSON object and of its aps object. A key that is given twice counts
// twice.
func keysOf(p []byte) (k PayloadKeys) {
	_ = rawjson.Members(p, func(name, value []byte) error { // anything else than an object has no keys
		if value[0] == 'n' {
			return nil
		}
		switch string(name) {
		case `"aps"`:
			k.APS = true
			if value[0] == '{' {
				_ = rawjson.Members(value, func(name, value []byte) error { // it is one
					k.NoteAPS(string(name[1:len(name)-1]), value)
					return nil
				})
			}
		case `"mdm"`:
			k.MDM = true
		case `"container-identifier"`:
			k.FileProvider = true
		}
		return nil
	})
	return k
}
