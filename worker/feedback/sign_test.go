package feedback

import (
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// testHook is Standard Webhooks' own library, with the tests' secret.
func testHook(t *testing.T) *standardwebhooks.Webhook {
	t.Helper()
	hook, err := standardwebhooks.NewWebhookRaw([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

// exampleTime is the timestamp that the examples have.
var exampleTime = time.Unix(1750000000, 0)

// The signatures are as openssl makes them, one for each secret:
//
//	printf '%s' 'abc.1750000000.{"records":[]}' | openssl dgst -sha256 -hmac SECRET -binary | base64
func TestSign(t *testing.T) {
	t.Parallel()
	const want = "v1,x+7tvDZyj/wiOiNx5XiHrhnExpkOABtVdcknfdI4Zyc= v1,9OrbkvguBoQb7U9A4ud4WP0RElvb6gnL09s9HyW67/0="
	secrets := [][]byte{[]byte(testSecret), []byte("the one before it")}
	if got := sign(secrets, "abc", "1750000000", []byte(`{"records":[]}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A request is good for whoever knows one of its secrets, and for nobody else.
func TestSignWithSeveralSecrets(t *testing.T) {
	t.Parallel()
	body := []byte(`{"records":[]}`)
	request := func(secrets ...string) func(secret string) error {
		w := NewWebhook(WebhookConfig{URL: "http://127.0.0.1/"})
		for _, s := range secrets {
			w.cfg.Secrets = append(w.cfg.Secrets, []byte(s))
		}
		r, err := w.request(t.Context(), body, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return func(secret string) error {
			hook, err := standardwebhooks.NewWebhookRaw([]byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			return hook.Verify(body, r.Header)
		}
	}
	rotating := request("the new one", testSecret)
	for secret, good := range map[string]bool{"the new one": true, testSecret: true, "another": false} {
		if err := rotating(secret); (err == nil) != good {
			t.Errorf("while it is replaced, %q: %v", secret, err)
		}
	}
	if err := request("the new one")(testSecret); err == nil {
		t.Error("the old secret still signs")
	}
}
