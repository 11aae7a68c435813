package apnsconn

import (
	"slices"
	"strings"

	"propeller/internal/rawjson"
)

// Bytes of a payload that APNs takes (Apple: sending-notification-requests-to-apns,
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

// pushType is what is known of one apns-push-type.
type pushType struct {
	name       string
	suffix     string // what the topic has after the bundle id; "" for none
	priorities []int  // those allowed; nil for 1, 5 and 10
	maxPayload int    // bytes
	tokenOnly  bool   // needs a provider token: no certificate serves it
}

// pushTypes are the types Apple documents. The list is open: others pass
// through, and APNs answers InvalidPushType to what it does not know.
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
	{name: "mdm", maxPayload: MaxPayload}, // its topic is the UID of the MDM certificate, no bundle id
	{name: "location", suffix: ".location-query", priorities: []int{5, 10}, maxPayload: MaxPayload, tokenOnly: true},
	{name: "liveactivity", suffix: ".push-type.liveactivity", priorities: []int{5, 10}, maxPayload: MaxPayload},
	{name: "pushtotalk", suffix: ".voip-ptt", maxPayload: MaxPayload},
	{name: "widgets", suffix: ".push-type.widgets", priorities: []int{5, 10}, maxPayload: MaxPayload},
	{name: "controls", suffix: ".push-type.controls", priorities: []int{5, 10}, maxPayload: MaxPayload},
}

// otherPushType stands for a type that Apple does not document (yet). Only
// APNs knows its limits, so the widest ones hold.
var otherPushType = pushType{maxPayload: MaxPayloadVoIP}

// broadcastType is what holds for a push to a channel. Apple's page on broadcasts
// names low, medium and high priority, of which a Live Activity on one device
// has but two.
var broadcastType = pushType{name: "liveactivity", maxPayload: maxPayloadBroadcast}

// pushTypeNamed returns what is known of a type. Its result must not be
// written to.
func pushTypeNamed(name string) *pushType {
	for i := range pushTypes {
		if pushTypes[i].name == name {
			return &pushTypes[i]
		}
	}
	return &otherPushType
}

// pushTypeOfTopic returns the type whose suffix the topic has, or nil.
func pushTypeOfTopic(topic string) *pushType {
	for i := range pushTypes {
		if t := &pushTypes[i]; t.suffix != "" && strings.HasSuffix(topic, t.suffix) {
			return t
		}
	}
	return nil
}

// allows reports whether a push of this type may have the priority. 0, which
// omits the header, is always allowed.
func (t *pushType) allows(priority int) bool {
	if t.priorities != nil {
		return priority == 0 || slices.Contains(t.priorities, priority)
	}
	return priority == 0 || priority == 1 || priority == 5 || priority == 10
}

// TopicFor returns the apns-topic of a push of a type to an app: the bundle id
// with the suffix of the type, for example "com.example.app.voip". A bundle
// that already ends in that suffix, a type without one and an unknown type
// leave the bundle as it is.
func TopicFor(bundle, pushType string) string {
	suffix := pushTypeNamed(pushType).suffix
	if suffix == "" || strings.HasSuffix(bundle, suffix) {
		return bundle
	}
	return bundle + suffix
}

// TokenOnly reports whether pushes of a type need a provider token: no certificate serves them.
func TokenOnly(pushType string) bool { return pushTypeNamed(pushType).tokenOnly }

// Meant returns the one of the words that given is but for its case and for hyphens and the
// like between its parts; "" if there is none, or given is right as it is. It is asked of
// each Live Activity.
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

// joined takes out what stands between the parts of a word. It is never changed.
var joined = strings.NewReplacer("-", "", "_", "", " ", "", ".", "")

// typeMeant is Meant for push types.
func typeMeant(given string) string {
	var names []string
	for i := range pushTypes {
		names = append(names, pushTypes[i].name)
	}
	return Meant(given, names)
}

// DefaultPriority returns the priority a push of a type must have when its
// sender named none: 5 for background, whose only priority that is while APNs
// takes an absent one for 10; else 0, which omits the header.
func DefaultPriority(pushType string) int {
	if pushType == "background" {
		return 5
	}
	return 0
}

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
// Keys written with escapes are not recognized. Of text that is not a JSON object
// any type may come out. A caller that knows the type, because the job names it or
// because it built the payload itself, need not call this at all.
func InferPushType(topic string, payload []byte) string {
	if t := pushTypeOfTopic(topic); t != nil {
		return t.name
	}
	k := keysOf(payload)
	return k.PushType(topic)
}

// PayloadKeys are the keys of a payload that tell its push type.
type PayloadKeys struct {
	APS, MDM, FileProvider bool // at the top
	Live, Visible          bool // in aps
}

// PushType is InferPushType of the payload that has these keys.
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

// NoteAPS takes up one key of aps, whose value is JSON.
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

// keysOf finds the keys of a JSON object and of its aps object. Of one that is given
// twice both count.
func keysOf(p []byte) (k PayloadKeys) {
	_ = rawjson.Members(p, func(name, value []byte) error { // what is no object has no keys
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
