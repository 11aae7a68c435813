package feedback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers of a webhook request.
const (
	// HeaderTimestamp is when the request was made, in Unix seconds.
	HeaderTimestamp = "Propeller-Timestamp"
	// HeaderSignature is "v1=" and HMAC-SHA256(secret, timestamp + "." + body)
	// in lower-case hex.
	HeaderSignature = "Propeller-Signature"
	// HeaderBatch is the id of the batch: 32 hex digits, the same whenever the
	// same records are sent again in the same batch.
	HeaderBatch = "Propeller-Batch"
)

// signaturePrefix names the scheme, so that another one can stand beside it.
const signaturePrefix = "v1="

// sign returns the value of HeaderSignature.
func sign(secret []byte, timestamp string, body []byte) string {
	return signaturePrefix + hex.EncodeToString(mac(secret, timestamp, body))
}

func mac(secret []byte, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(timestamp))
	h.Write([]byte{'.'})
	h.Write(body)
	return h.Sum(nil)
}

// Errors of Verify.
var (
	// ErrSignature: the signature is missing, or not of this secret and body.
	ErrSignature = errors.New("bad signature")
	// ErrTimestamp: the timestamp is missing, or too far from the present.
	ErrTimestamp = errors.New("bad timestamp")
)

// Verify checks a webhook request: that whoever made it knows secret, that the
// body (the whole of it, as received) is the one signed, and that it was made
// no longer than tolerance before or after now, so that a request cannot be
// recorded and sent again later. A receiver answers 401 when it fails. The
// error wraps ErrSignature or ErrTimestamp and holds no secret.
func Verify(secret []byte, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	if len(secret) == 0 {
		return fmt.Errorf("feedback: verify: no secret: %w", ErrSignature)
	}
	timestamp := header.Get(HeaderTimestamp)
	hexMAC, ok := strings.CutPrefix(header.Get(HeaderSignature), signaturePrefix)
	if !ok {
		return fmt.Errorf("feedback: verify: no %s of version 1: %w", HeaderSignature, ErrSignature)
	}
	got, err := hex.DecodeString(hexMAC)
	if err != nil || !hmac.Equal(got, mac(secret, timestamp, body)) {
		return fmt.Errorf("feedback: verify: %w", ErrSignature)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return fmt.Errorf("feedback: verify: %s is not a number: %w", HeaderTimestamp, ErrTimestamp)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age.Abs() > tolerance {
		return fmt.Errorf("feedback: verify: made %v ago, allowed are %v either way: %w", age.Round(time.Second), tolerance, ErrTimestamp)
	}
	return nil
}
