package apnsconn

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"propeller/internal/keysize"
)

// A certificate with names as long as its file makes no error, warning or log line of
// that length; nor does a file whose faults would be quoted.
func TestLongNamesAreCut(t *testing.T) {
	t.Parallel()
	const most = 3000
	key := newTestKey(t)
	long := strings.Repeat("é", 50_000)
	for name, s := range map[string]certSpec{
		"uid":    {uid: long},
		"topics": {uid: "com.example.app", topics: topicList(t, "com.example.app", long, long+"a", long+"b")},
	} {
		c, err := LoadCertificate(inTempFile(t, "x.pem", certPEM(newTestCert(t, s, key)), keyPEM(t, key)), "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range []string{"com.example.other", "com.example.app.voip", "com.example.app"} {
			warnings, err := c.Check(topic, Production, time.Now())
			text := strings.Join(warnings, "\n")
			if err != nil {
				text += err.Error()
			}
			if len(text) > most || topic == "com.example.other" && !strings.Contains(text, "topic") {
				t.Errorf("%s, %s: %d bytes", name, topic, len(text))
			}
		}
		if n := len(c.String()); n > most {
			t.Errorf("%s: String has %d bytes", name, n)
		}
	}
	id := make(asn1.ObjectIdentifier, 20_000)
	for i := range id {
		id[i] = 1
	}
	oid := inDER(t, encryptedPrivateKeyInfo{pkix.AlgorithmIdentifier{Algorithm: id}, make([]byte, 16)})
	for name, data := range map[string][]byte{
		"types": bytes.Repeat(pem.EncodeToMemory(&pem.Block{Type: strings.Repeat("X", 10_000)}), 50),
		"oid":   pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: oid}),
	} {
		if _, err := LoadCertificate(inTempFile(t, "x.pem", data), "", "x"); err == nil || len(err.Error()) > most {
			t.Errorf("%s: %.100v", name, err)
		}
		if _, err := keysize.Pair(data, data); err == nil || len(err.Error()) > most {
			t.Errorf("%s of a server: %.100v", name, err)
		}
	}
}
