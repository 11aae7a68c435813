package job

import (
	"fmt"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
)

// maxWarnings bounds what is said of one job.
const maxWarnings = 20

// Warnings are about what works and is perhaps not what was meant.
func (a *Rules) Warnings(j *Job) (out []string) {
	n := &j.Notification
	if a.LiveByCertificate(n) {
		out = append(out, liveWarning)
	}
	if j.extra != nil {
		out = append(out, fmt.Sprintf("%v: it is ignored (extra_keys)", j.extra))
	}
	w := warnings{out}
	_ = rawjson.Members(n.Payload, func(name, value []byte) error { // it is one
		w.look(text(name), value)
		if text(name) == "aps" && isObject(value) {
			w.spelling("aps", value, apsKeys[:])
		}
		return nil
	})
	return w.out
}

// apsKeys are the keys of aps that Apple documents.
var apsKeys = [...]string{
	"alert", "badge", "sound", "category", "thread-id", "target-content-id", "interruption-level", "relevance-score", "filter-criteria",
	"mutable-content", "content-available", "content-changed", "content-state", "stale-date", "dismissal-date", "attributes-type", "attributes",
	"timestamp", "event",
}

type warnings struct{ out []string }

func (w *warnings) add(text string) {
	if len(w.out) < maxWarnings {
		w.out = append(w.out, text)
	}
}

// look finds null in a value, which reaches the app as it is.
func (w *warnings) look(at string, value []byte) {
	below := func(name string, value []byte) {
		if len(at)+len(name) < maxRef {
			w.look(at+"."+name, value)
		}
	}
	switch {
	case isNull(value):
		w.add(at + " is null, and is sent so")
	case isObject(value):
		_ = eachMember(value, func(name string, value []byte) error { below(name, value); return nil })
	case isList(value):
		i := -1
		_ = rawjson.Elements(value, func(_ int, value []byte) error {
			i++
			below(fmt.Sprint(i), value)
			return nil
		})
	}
}

// spelling finds keys that are known in another spelling, to which a device pays no heed.
func (w *warnings) spelling(at string, obj []byte, known []string) {
	_ = eachMember(obj, func(name string, _ []byte) error {
		if right := apnsconn.Meant(name, known); right != "" {
			w.add(fmt.Sprintf("%s.%s: Apple's key is %s", at, name, right))
		}
		return nil
	})
}
