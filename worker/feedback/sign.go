package feedback

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Headers of a webhook request, as Standard Webhooks (standardwebhooks.com) has them.
const (
	// HeaderID is the id of the batch: 32 hex digits, the same whenever the same
	// records are sent again in the same batch.
	HeaderID = "Webhook-Id"
	// HeaderTimestamp is when the request was made, in Unix seconds.
	HeaderTimestamp = "Webhook-Timestamp"
	// HeaderSignature is a signature for each secret, with blanks between them.
	HeaderSignature = "Webhook-Signature"
)

// sign returns the value of HeaderSignature.
func sign(secrets [][]byte, id, timestamp string, body []byte) string {
	var all []string
	for _, secret := range secrets {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(id + "." + timestamp + "."))
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(all, " ")
}
