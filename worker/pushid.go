package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// seed is what the apns-ids of a job with several tokens are made of, together
// with the token. It goes with the tokens when the job is split, so that each
// push keeps its id over all tries.
type seed [16]byte

// identify gives the push its apns-id, if the job does not.
func (j *Job) identify(raw *rawJob, jobID string, body []byte) error {
	n := &j.Notification
	if j.Tokens == nil {
		if raw[keyAgain] != nil {
			return &JobError{"again", "stands only beside tokens, and is written by propeller itself"}
		}
		if n.ID == "" {
			n.ID = deriveID(jobID, body)
		}
		return nil
	}
	if n.ID != "" {
		return &JobError{"id", "cannot stand beside tokens: each push needs an id of its own"}
	}
	if raw[keyAgain] != nil {
		o, err := parseOrigin(raw[keyAgain])
		if err != nil {
			return err
		}
		j.origin, j.seed = o, o.seed
	} else {
		sum := hashOf(jobID, body)
		copy(j.seed[:], sum[:])
	}
	n.ID = string(j.seed.appendID(nil, n.Token))
	return nil
}

// deriveID makes an apns-id of the job's id and text: the same on each try of a
// job, another for another job.
func deriveID(jobID string, body []byte) string {
	var s [36]byte
	return string(appendUUID(s[:0], hashOf(jobID, body)))
}

func hashOf(jobID string, body []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte(jobID))
	h.Write([]byte{0})
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

// appendID appends the apns-id of the push to token.
func (s seed) appendID(b []byte, token string) []byte {
	var text [len(s) + maxBadToken]byte
	sum := sha256.Sum256(append(append(text[:0], s[:]...), token...))
	return appendUUID(b, sum)
}

// ids makes the apns-ids of the pushes to tokens, as substrings of one string.
func (s seed) ids(tokens []string) (ids string) {
	var all strings.Builder
	all.Grow(len(tokens) * uuidLen)
	var one [uuidLen]byte
	for _, token := range tokens {
		all.Write(s.appendID(one[:0], token))
	}
	return all.String()
}

const uuidLen = 36

// appendUUID appends a UUID of version 8 (RFC 9562, section 5.8) made of a hash.
func appendUUID(b []byte, sum [sha256.Size]byte) []byte {
	u := sum[:16]
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
