package apnsconn

import "propeller/internal/rawjson"

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
