package job

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Seed is what a job's apns-ids are made from; in a list, together with the token. It stays
// with the job when that is split or buried, so each push keeps its id over all tries.
// Only somebody who has read the job can make it.
type Seed [16]byte

// identify gives the push its apns-id, if the job does not.
func (j *Job) identify(raw *rawJob, jobID string, body []byte) error {
	n := &j.Notification
	if j.Tokens != nil && n.ID != "" {
		return &Error{"id", "cannot stand beside tokens: each push needs an id of its own"}
	}
	if raw[keyAgain] != nil {
		o, err := parseParent(raw[keyAgain])
		if err != nil {
			return err
		}
		j.Parent, j.Seed = o, o.Seed
	} else if n.ID == "" {
		j.Seed = SeedOf(jobID, body)
	}
	var id [IDLen]byte
	switch {
	case j.Tokens != nil:
		n.ID = string(j.Seed.appendID(id[:0], n.Token))
	case n.ID == "":
		n.ID = string(appendUUID(id[:0], j.Seed))
	}
	return nil
}

// SeedOf makes a seed from a job's id and text: the same on each try of the job, and different
// for every other job.
func SeedOf(jobID string, body []byte) (s Seed) {
	h := sha256.New()
	h.Write([]byte(jobID))
	h.Write([]byte{0})
	h.Write(body)
	var sum [sha256.Size]byte
	copy(s[:], h.Sum(sum[:0]))
	return s
}

// appendID appends the apns-id of the push to token.
func (s Seed) appendID(b []byte, token string) []byte {
	var text [len(s) + maxBadToken]byte
	sum := sha256.Sum256(append(append(text[:0], s[:]...), token...))
	return appendUUID(b, Seed(sum[:]))
}

// IDs makes the apns-ids of the pushes to tokens, as substrings of one string.
func (s Seed) IDs(tokens []string) (ids string) {
	var all strings.Builder
	all.Grow(len(tokens) * IDLen)
	var one [IDLen]byte
	for _, token := range tokens {
		all.Write(s.appendID(one[:0], token))
	}
	return all.String()
}

const IDLen = 36

// appendUUID appends a UUID of version 8 (RFC 9562, section 5.8) made of a hash.
func appendUUID(b []byte, u Seed) []byte {
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	for i, part := range [...][]byte{u[:4], u[4:6], u[6:8], u[8:10], u[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}
