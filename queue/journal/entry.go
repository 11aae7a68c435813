package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"propeller/queue"
)

// Entry says why one job was buried.
type Entry struct {
	ID     string    `json:"id"`               // the queue's id of the job
	Topic  string    `json:"topic,omitempty"`  // of the app
	Tube   string    `json:"tube"`             // where the job lies
	Class  string    `json:"class,omitempty"`  // of the last outcome
	Status int       `json:"status,omitempty"` // APNs' HTTP status; 0 when there was no answer
	Reason string    `json:"reason"`           // APNs' reason, or ours in words; at most 512 bytes are kept
	Token  string    `json:"token,omitempty"`  // the first 8 characters; more are cut off
	Ref    string    `json:"ref,omitempty"`    // the producer's own id
	APNsID string    `json:"apns_id,omitempty"`
	At     time.Time `json:"at"` // when it was buried; now if zero

	// Sum is Sum(body). It tells the job from a later one with the same id:
	// beanstalkd without a binlog counts from 1 again when it is restarted. All
	// zero: not known, any job with the id is taken for this one.
	Sum [8]byte `json:"sum"`

	// gone is when the job was found not to be buried; zero for the entries that
	// List shows. See goneShelf.
	gone time.Time
}

// Sum is the first 8 bytes of the SHA-256 of a job's body.
func Sum(body []byte) (sum [8]byte) {
	full := sha256.Sum256(body)
	copy(sum[:], full[:])
	return sum
}

// is says whether body is of the job that e speaks of.
func (e Entry) is(body []byte) bool { return e.Sum == [8]byte{} || e.Sum == Sum(body) }

// Bounds of an entry in bytes, so that a journal of 100,000 has a size that
// can be told: texts are cut, an id that is longer is refused.
const (
	maxID     = 512 // host:port/number; a host name has 255 at most
	maxReason = 512
	maxText   = 256
	maxToken  = 8
)

// bounded returns e fit for the journal.
func (e Entry) bounded() (Entry, error) {
	if err := queue.CheckTube(e.Tube); err != nil {
		return e, fmt.Errorf("journal: entry of job %.40q: %w", e.ID, err)
	}
	if e.ID == "" || len(e.ID) > maxID {
		return e, fmt.Errorf("journal: entry in %q: id of %d bytes: must be 1 to %d", e.Tube, len(e.ID), maxID)
	}
	for text, limit := range map[*string]int{
		&e.Topic: maxText, &e.Class: maxText, &e.Ref: maxText, &e.APNsID: maxText, &e.Reason: maxReason, &e.Token: maxToken,
	} {
		*text = cut(*text, limit)
	}
	// The key counts nanoseconds from 1970 in 63 bits, which end in 2262.
	if e.At.Before(time.Unix(0, 0)) || e.At.After(time.Unix(0, math.MaxInt64)) {
		e.At = time.Now()
	}
	e.At = e.At.UTC()
	return e, nil
}

// cut returns at most limit bytes of s, whole characters, valid UTF-8, and not
// a part of a larger string that would stay in memory with it.
func cut(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = strings.Clone(s[:limit])
	}
	return strings.ToValidUTF8(s, "�")
}

// goneShelf is where the entries of tube are kept whose jobs were found not to
// be buried any more. The blank is in no tube's name (queue.CheckTube).
//
// They are not thrown away at once because the queue that was asked may be
// another one than the job is in: a URL that was wrong for a moment, a second
// server that makes other ids. Once the job is found again, its reason is there.
func goneShelf(tube string) string { return gonePrefix + tube }

const gonePrefix = "gone "

// keepGone is how long they are kept: who has configured a wrong queue notices
// within a week.
const keepGone = 7 * 24 * time.Hour

// shelf is where the entry lies in the database.
func (e Entry) shelf() string {
	if e.gone.IsZero() {
		return e.Tube
	}
	return goneShelf(e.Tube)
}

// key orders the entries of a shelf by time: 8 bytes of Unix nanoseconds, from
// when the entry came there, and the id.
func (e Entry) key() []byte {
	at := e.At
	if !e.gone.IsZero() {
		at = e.gone
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano())), e.ID...)
}

// An entry is stored as the CRC-32 of its JSON and the JSON.

func (e Entry) encode() ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(text)), text...), nil
}

var errUnreadable = errors.New("journal: entry is damaged")

func decode(v []byte) (e Entry, err error) {
	if len(v) < 4 || crc32.ChecksumIEEE(v[4:]) != binary.BigEndian.Uint32(v) {
		return e, errUnreadable
	}
	if err := json.Unmarshal(v[4:], &e); err != nil {
		return e, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return e, nil
}
