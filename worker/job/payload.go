package job

import (
	"fmt"
	"slices"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// payload assembles the JSON body of the push: the job's payload as it was written, or
// aps made of the short forms with the job's aps over them, and data beside it.
// pushType is what such a payload's is unless the job says.
func payload(raw *rawJob, topic string) (body []byte, pushType string, err error) {
	if raw[keyPayload] != nil {
		for k := range raw {
			if isContent(key(k)) && raw[k] != nil {
				return nil, "", &Error{jobKeys[k].name, "cannot stand beside payload, which is sent as it is"}
			}
		}
		if raw[keyPushType] == nil {
			pushType = apnsconn.InferPushType(topic, raw[keyPayload])
		}
		return raw[keyPayload], pushType, nil
	}
	given, err := givenOf(raw[keyAPS])
	if err != nil {
		return nil, "", err
	}
	if len(given.aps) > 0 || raw[keyInterruptionLevel] != nil {
		if err := misspelt(raw, given.aps); err != nil {
			return nil, "", err
		}
	}
	keys := keysOfAPS(raw, given.aps)
	body, err = assemble(raw, &given)
	return body, keys.PushType(topic), err
}

// apsWords are the words that a key of aps may have; to another spelling of one the device
// pays no heed.
var apsWords = [...]struct {
	name  string
	words []string
}{
	{"interruption-level", []string{"passive", "active", "time-sensitive", "critical"}},
	{"event", []string{"start", "update", "end"}},
}

// misspelt finds a word that is known in another spelling. Unknown ones pass: Apple may have
// more of them.
func misspelt(raw *rawJob, aps members) error {
	for _, key := range apsWords {
		name, value := "aps", aps.get(key.name)
		if value == nil && key.name == jobKeys[keyInterruptionLevel].aps {
			name, value = jobKeys[keyInterruptionLevel].name, raw[keyInterruptionLevel]
		}
		if value == nil || !isString(value) || key.name == "event" && !mayBeLive(raw) {
			continue
		}
		given := text(value)
		if right := apnsconn.Meant(given, key.words); right != "" {
			return &Error{name, fmt.Sprintf("the %s %q: write %q", key.name, given, right)}
		}
	}
	return nil
}

// mayBeLive reports whether nothing in the job says that it is no Live Activity.
func mayBeLive(raw *rawJob) bool {
	return raw[keyPushType] == nil || text(raw[keyPushType]) == "liveactivity"
}

// given is the job's aps object, without what is null there: that is how serializers write
// fields that nobody has set.
type given struct {
	aps   members
	alert members // of its alert, if that is an object; one without any counts as absent
}

func givenOf(aps []byte) (g given, err error) {
	if g.aps, err = apsMembers(aps); err != nil {
		return g, err
	}
	alert := g.aps.get("alert")
	if alert == nil || !isObject(alert) {
		return g, nil
	}
	if g.alert, err = apsMembers(alert); len(g.alert) == 0 {
		g.aps = slices.DeleteFunc(g.aps, func(m member) bool { return m.name == "alert" })
	}
	return g, err
}

// assemble makes the payload of a job that does not hold it as it is, in its shortest form.
func assemble(raw *rawJob, given *given) (b []byte, err error) {
	size := 32
	for k := keyTitle; k <= keyData; k++ {
		if raw[k] != nil {
			size += len(raw[k]) + 24
		}
	}
	b = make([]byte, 0, size)
	b = append(b, `{"aps":{`...)
	start := len(b)
	b = appendAlert(b, raw, given)
	for k := keyTitle; k < keyAPS; k++ {
		if name := jobKeys[k].aps; name != "" && raw[k] != nil && !given.aps.has(name) {
			b = appendShort(b, start, k, raw[k])
		}
	}
	for _, m := range given.aps {
		if m.name != "alert" {
			b = appendPair(b, start, m.quoted, m.value)
		}
	}
	b = append(b, '}')
	if b, err = appendData(b, raw[keyData]); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

// keysOfAPS are the keys of the payload that assemble makes.
func keysOfAPS(raw *rawJob, given members) apnsconn.PayloadKeys {
	k := apnsconn.PayloadKeys{APS: true}
	for _, m := range given {
		k.NoteAPS(m.name, m.value)
	}
	for _, short := range [...]key{keyTitle, keySubtitle, keyBody, keyBadge, keySound} {
		name := jobKeys[short].aps
		if name == "" {
			name = "alert"
		}
		if raw[short] != nil && !given.has(name) {
			k.NoteAPS(name, raw[short])
		}
	}
	return k
}

// isContent: the keys that payload replaces.
func isContent(k key) bool { return k >= keyTitle && k <= keyData }

type member struct {
	name          string
	quoted, value []byte // name as JSON, and its value; in their shortest forms
}

type members []member

func (ms members) has(name string) bool {
	for i := range ms {
		if ms[i].name == name {
			return true
		}
	}
	return false
}

func (ms members) get(name string) []byte {
	for i := range ms {
		if ms[i].name == name {
			return ms[i].value
		}
	}
	return nil
}

// fewMembers are compared faster than they are looked up.
const fewMembers = 16

// apsMembers lists the members of the job's aps object, or of its alert, that are not null;
// none for nil. No more is listed than fits in a payload.
func apsMembers(obj []byte) (members, error) {
	if obj == nil {
		return nil, nil
	}
	var ms members
	var seen map[string]bool // once there are more than few
	size := len(`{"aps":{}}`) - len(`,`)
	err := rawjson.Members(obj, func(quoted, value []byte) error {
		if isNull(value) {
			return nil
		}
		name := nameOf(quoted)
		if name == "alert" && isEmptyList(value) {
			value = []byte(emptyObject)
		}
		quoted = rawjson.Short(quoted)
		size += len(quoted) + len(`:,`)
		if name != "alert" || !isObject(value) { // of which the members count
			value = rawjson.Short(value)
			size += len(value)
		}
		if size > apnsconn.MaxPayloadVoIP {
			return nil
		}
		if len(ms) < fewMembers && ms.has(name) || seen[name] {
			return &Error{"aps", "a key is given twice"}
		}
		ms = append(ms, member{name, quoted, value})
		if len(ms) == fewMembers {
			seen = make(map[string]bool)
			for _, m := range ms {
				seen[m.name] = true
			}
		} else if seen != nil {
			seen[name] = true
		}
		return nil
	})
	if err == nil && size > apnsconn.MaxPayloadVoIP {
		err = &Error{"payload", fmt.Sprintf("has %d bytes or more, at most %d are allowed", size, apnsconn.MaxPayloadVoIP)}
	}
	return ms, err
}

// appendAlert writes aps.alert. An alert object in aps is laid over title,
// subtitle and body; anything else there replaces them.
func appendAlert(b []byte, raw *rawJob, given *given) []byte {
	alert := given.aps.get("alert")
	if alert != nil && !isObject(alert) {
		return append(append(b, `"alert":`...), alert...)
	}
	if alert == nil && raw[keyTitle] == nil && raw[keySubtitle] == nil && raw[keyBody] == nil {
		return b
	}
	b = append(b, `"alert":{`...)
	start := len(b)
	for _, k := range []key{keyTitle, keySubtitle, keyBody} {
		if name := jobKeys[k].name; raw[k] != nil && !given.alert.has(name) {
			b = appendMember(b, start, name, rawjson.Short(raw[k]))
		}
	}
	for _, m := range given.alert {
		b = appendPair(b, start, m.quoted, m.value)
	}
	return append(b, '}')
}

// appendShort writes one short form under its name in aps.
func appendShort(b []byte, start int, k key, value []byte) []byte {
	switch jobKeys[k].kind {
	case kindWhole:
		if isString(value) { // "3" → 3; leading zeros are no JSON number
			value = trimZeros(digits(value))
		}
	case kindFlag:
		on, _ := flag(value)
		if !on {
			return b
		}
		value = []byte{'1'}
	}
	return appendMember(b, start, jobKeys[k].aps, rawjson.Short(value))
}

func trimZeros(digits []byte) []byte {
	for len(digits) > 1 && digits[0] == '0' {
		digits = digits[1:]
	}
	return digits
}

// appendMember writes one member; start is where the object's first would stand.
func appendMember(b []byte, start int, name string, value []byte) []byte {
	if len(b) > start {
		b = append(b, ',')
	}
	b = append(appendName(b, name), ':')
	return append(b, value...)
}

// appendPair is appendMember with the name as JSON.
func appendPair(b []byte, start int, quoted, value []byte) []byte {
	if len(b) > start {
		b = append(b, ',')
	}
	b = append(append(b, quoted...), ':')
	return append(b, value...)
}

// appendData writes the members of data beside aps.
func appendData(b, data []byte) ([]byte, error) {
	if data == nil {
		return b, nil
	}
	err := rawjson.Members(data, func(quoted, value []byte) error {
		if nameOf(quoted) == "aps" {
			return &Error{"data", "cannot hold aps: use the key aps"}
		}
		b = append(rawjson.AppendShort(append(b, ','), quoted), ':')
		b = rawjson.AppendShort(b, value)
		return nil
	})
	return b, err
}
