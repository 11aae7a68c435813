package job

import (
	"fmt"
	"strings"

	"propeller/apnsconn"
	"propeller/internal/nearest"
)

// unknown is why a job with a key that does not exist can never work.
const unknown = "unknown key"

// key numbers the keys of a job.
type key int

const (
	keyToken key = iota
	keyTokens
	keyTokenSince
	keyChannelID
	keyTitle
	keySubtitle
	keyBody
	keyBadge
	keySound
	keyCategory
	keyThreadID
	keyTargetContentID
	keyInterruptionLevel
	keyRelevanceScore
	keyFilterCriteria
	keyMutableContent
	keyContentAvailable
	keyAPS
	keyData
	keyPayload
	keyPushType
	keyPriority
	keyCollapseID
	keyID
	keyExpiration
	keyTTL
	keyRef
	keyAgain
	numKeys
)

// kind is what a key's value must look like.
type kind int

const (
	kindString kind = iota
	kindWhole       // whole number ≥ 0, or a string of digits
	kindNumber
	kindFlag // true, false, 1, 0
	kindObject
	kindSound // string or object
	kindList
)

var kindText = [...]string{
	kindString: "must be a string",
	kindWhole:  "must be a whole number, 0 or more",
	kindNumber: "must be a number",
	kindFlag:   "must be true, false, 1 or 0",
	kindObject: "must be an object",
	kindSound:  "must be a string or an object",
	kindList:   "must be a list",
}

const (
	badPriority = "must be 1, 5 or 10"
	badTTL      = "must be a number of seconds, 1 or more"
)

// jobKeys is the job format: each key, what it holds, and for the short forms
// where in aps it goes.
var jobKeys = [numKeys]struct {
	name string
	kind kind
	aps  string // name in aps; "" when the key is no short form there
}{
	keyToken:             {"token", kindString, ""},
	keyTokens:            {"tokens", kindList, ""},
	keyTokenSince:        {"token_since", kindWhole, ""},
	keyChannelID:         {"channel_id", kindString, ""},
	keyTitle:             {"title", kindString, ""}, // title, subtitle and body go into aps.alert
	keySubtitle:          {"subtitle", kindString, ""},
	keyBody:              {"body", kindString, ""},
	keyBadge:             {"badge", kindWhole, "badge"},
	keySound:             {"sound", kindSound, "sound"},
	keyCategory:          {"category", kindString, "category"},
	keyThreadID:          {"thread_id", kindString, "thread-id"},
	keyTargetContentID:   {"target_content_id", kindString, "target-content-id"},
	keyInterruptionLevel: {"interruption_level", kindString, "interruption-level"},
	keyRelevanceScore:    {"relevance_score", kindNumber, "relevance-score"},
	keyFilterCriteria:    {"filter_criteria", kindString, "filter-criteria"},
	keyMutableContent:    {"mutable_content", kindFlag, "mutable-content"},
	keyContentAvailable:  {"content_available", kindFlag, "content-available"},
	keyAPS:               {"aps", kindObject, ""},
	keyData:              {"data", kindObject, ""},
	keyPayload:           {"payload", kindObject, ""},
	keyPushType:          {"push_type", kindString, ""},
	keyPriority:          {"priority", kindWhole, ""},
	keyCollapseID:        {"collapse_id", kindString, ""},
	keyID:                {"id", kindString, ""},
	keyExpiration:        {"expiration", kindWhole, ""},
	keyTTL:               {"ttl", kindWhole, ""},
	keyRef:               {"ref", kindString, ""},
	keyAgain:             {"again", kindObject, ""}, // written by RemainderBody and BuriedBody
}

func keyOf(name string) (key, bool) {
	for k := range jobKeys {
		if jobKeys[k].name == name {
			return key(k), true
		}
	}
	return 0, false
}

// rawJob holds the raw value of each key; nil for absent and for null.
type rawJob [numKeys][]byte

// read checks the form of a job: a JSON object of known keys, each once, each of
// its kind.
func (g *rawMembers) read(body []byte) error {
	_, err := bodyMembers(body, func(name string, value []byte) error { return g.add(name, value) })
	return err
}

// rawMembers are the members of a job that have been read so far.
type rawMembers struct {
	raw   rawJob
	seen  [numKeys]bool
	extra error // of the first key that no job has; nil if there is none
}

// add takes up one member, unless it is at fault.
func (g *rawMembers) add(name string, value []byte) error {
	k, ok := keyOf(name)
	if !ok {
		if g.extra == nil {
			g.extra = unknownKey(name)
		}
		return nil
	}
	if g.seen[k] {
		return &Error{name, "given twice"}
	}
	g.seen[k] = true
	if isNull(value) {
		return nil
	}
	if jobKeys[k].kind == kindObject && isEmptyList(value) {
		value = []byte(emptyObject)
	}
	if kind := jobKeys[k].kind; !kind.accepts(value) {
		why := kindText[kind]
		switch k {
		case keyPriority:
			why = badPriority
		case keyExpiration:
			why = "must be Unix seconds, a whole number, 0 or more"
		case keyTTL:
			why = badTTL
		}
		if isNumber(value) && len(value) <= maxDigits {
			why = fmt.Sprintf("is %s, and %s", value, why)
		}
		return &Error{name, why}
	}
	g.raw[k] = value
	return nil
}

func unknownKey(name string) error {
	// The longest known key has 18 bytes; what is much longer is no typing
	// error but perhaps a device token, which logs must not hold whole.
	if len(name) > 24 {
		name = strings.ToValidUTF8(name[:8], "") + "…"
	}
	why := unknown
	if right := apnsconn.Meant(name, keyNames()); right != "" {
		why += fmt.Sprintf(": write %q", right)
	} else if near := nearest.Of(name, keyNames()); near != "" {
		why += fmt.Sprintf(": did you mean %q? (extra_keys: ignore allows any key)", near)
	}
	return &Error{name, why}
}

func keyNames() (names []string) {
	for k := range jobKeys {
		names = append(names, jobKeys[k].name)
	}
	return names
}

func (k kind) accepts(raw []byte) bool {
	switch k {
	case kindString:
		return isString(raw)
	case kindWhole:
		_, ok := wholeNumber(raw)
		return ok
	case kindNumber:
		return isNumber(raw)
	case kindFlag:
		_, ok := flag(raw)
		return ok
	case kindObject:
		return isObject(raw)
	case kindSound:
		return isString(raw) || isObject(raw)
	case kindList:
		return isList(raw)
	}
	return false
}
