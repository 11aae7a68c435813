package worker

import (
	"fmt"

	"propeller/apnsconn"
)

// payload assembles the JSON body of the push: the job's payload verbatim, or
// aps made of the short forms with the job's aps over them, and data beside it.
// pushType is what such a payload's is unless the job says.
func payload(raw *rawJob, topic string) (body []byte, pushType string, err error) {
	if raw[keyPayload] != nil {
		for k := range raw {
			if isContent(key(k)) && raw[k] != nil {
				return nil, "", &JobError{jobKeys[k].name, "cannot stand beside payload, which is sent as it is"}
			}
		}
		if raw[keyPushType] == nil {
			pushType = apnsconn.InferPushType(topic, raw[keyPayload])
		}
		return raw[keyPayload], pushType, nil
	}
	given, err := apsMembers(raw[keyAPS])
	if err != nil {
		return nil, "", err
	}
	keys := keysOfAPS(raw, given)
	body, err = assemble(raw, given)
	return body, keys.PushType(topic), err
}

// assemble makes the payload of a job that does not hold it as it is.
func assemble(raw *rawJob, given members) (b []byte, err error) {
	size := 32
	for k := keyTitle; k <= keyData; k++ {
		if raw[k] != nil {
			size += len(raw[k]) + 24
		}
	}
	b = make([]byte, 0, size)
	b = append(b, `{"aps":{`...)
	start := len(b)
	if b, err = appendAlert(b, raw, given); err != nil {
		return nil, err
	}
	for k := keyTitle; k < keyAPS; k++ {
		if name := jobKeys[k].aps; name != "" && raw[k] != nil && !given.has(name) {
			b = appendShort(b, start, k, raw[k])
		}
	}
	for _, m := range given {
		if m.name != "alert" {
			b = appendMember(b, start, m.name, m.value)
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
	name  string
	value []byte
}

type members []member

func (ms members) has(name string) bool { return ms.get(name) != nil }

func (ms members) get(name string) []byte {
	for _, m := range ms {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// fewMembers are compared faster than they are looked up.
const fewMembers = 16

// apsMembers lists the members of the job's aps object, or of its alert; none for
// nil. No more is listed than fits in a payload.
func apsMembers(obj []byte) (members, error) {
	if obj == nil {
		return nil, nil
	}
	var ms members
	var seen map[string]bool // once there are more than few
	size := len(`{"aps":{}}`) - len(`,`)
	err := eachMember(obj, func(name string, value []byte) error {
		size += len(name) + len(`"":,`)
		if name != "alert" || !isObject(value) { // of which the members count, without blanks between
			size += len(value)
		}
		if size > apnsconn.MaxPayloadVoIP {
			return nil
		}
		if len(ms) < fewMembers && ms.has(name) || seen[name] {
			return &JobError{"aps", "a key is given twice"}
		}
		ms = append(ms, member{name, value})
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
		err = &JobError{"payload", fmt.Sprintf("has %d bytes or more, at most %d are allowed", size, apnsconn.MaxPayloadVoIP)}
	}
	return ms, err
}

// appendAlert writes aps.alert. An alert object in aps is laid over title,
// subtitle and body; anything else there replaces them.
func appendAlert(b []byte, raw *rawJob, given members) ([]byte, error) {
	alert := given.get("alert")
	if alert != nil && !isObject(alert) {
		return append(append(b, `"alert":`...), alert...), nil
	}
	if alert == nil && raw[keyTitle] == nil && raw[keySubtitle] == nil && raw[keyBody] == nil {
		return b, nil
	}
	over, err := apsMembers(alert)
	if err != nil {
		return nil, err
	}
	b = append(b, `"alert":{`...)
	start := len(b)
	for _, k := range []key{keyTitle, keySubtitle, keyBody} {
		if name := jobKeys[k].name; raw[k] != nil && !over.has(name) {
			b = appendMember(b, start, name, raw[k])
		}
	}
	for _, m := range over {
		b = appendMember(b, start, m.name, m.value)
	}
	return append(b, '}'), nil
}

// appendShort writes one short form under its name in aps.
func appendShort(b []byte, start int, k key, value []byte) []byte {
	switch jobKeys[k].kind {
	case kindWhole:
		if isString(value) { // "3" → 3; leading zeros are no JSON number
			value = trimZeros(value[1 : len(value)-1])
		}
	case kindFlag:
		on, _ := flag(value)
		if !on {
			return b
		}
		value = []byte{'1'}
	}
	return appendMember(b, start, jobKeys[k].aps, value)
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
	b = appendName(b, name)
	b = append(b, ':')
	return append(b, value...)
}

// appendData writes the members of data beside aps.
func appendData(b, data []byte) ([]byte, error) {
	if data == nil {
		return b, nil
	}
	err := eachMember(data, func(name string, value []byte) error {
		if name == "aps" {
			return &JobError{"data", "cannot hold aps: use the key aps"}
		}
		b = appendMember(b, 0, name, value)
		return nil
	})
	return b, err
}
