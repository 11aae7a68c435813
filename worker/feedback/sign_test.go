package feedback

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The signature is as openssl makes it:
//
//	printf '%s' '1750000000.{"records":[]}' | openssl dgst -sha256 -hmac 0123456789abcdef-secret
func TestSign(t *testing.T) {
	t.Parallel()
	const want = "v1=000a19a39603464e20fcb6fa3d8c45f1660c093fd5b37bc741133e2c2fde2924"
	if got := sign([]byte(testSecret), "1750000000", []byte(`{"records":[]}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// exampleTime is the timestamp that the examples have.
var exampleTime = time.Unix(1750000000, 0)

func TestVerify(t *testing.T) {
	t.Parallel()
	const body = `{"records":[]}`
	good := sign([]byte(testSecret), "1750000000", []byte(body))
	for name, c := range map[string]struct {
		change func(h http.Header)
		secret string
		body   string
		after  time.Duration
		want   error
	}{
		"good":            {},
		"just in time":    {after: 5 * time.Minute},
		"just not early":  {after: -5 * time.Minute},
		"late":            {after: 5*time.Minute + 1, want: ErrTimestamp},
		"early":           {after: -5*time.Minute - 1, want: ErrTimestamp},
		"other secret":    {secret: "another secret", want: ErrSignature},
		"other body":      {body: body + " ", want: ErrSignature},
		"other time":      {change: func(h http.Header) { h.Set(HeaderTimestamp, "1750000001") }, want: ErrSignature},
		"no time":         {change: func(h http.Header) { h.Del(HeaderTimestamp) }, want: ErrSignature},
		"no signature":    {change: func(h http.Header) { h.Del(HeaderSignature) }, want: ErrSignature},
		"empty signature": {change: func(h http.Header) { h.Set(HeaderSignature, "v1=") }, want: ErrSignature},
		"other version":   {change: func(h http.Header) { h.Set(HeaderSignature, "v2="+good[3:]) }, want: ErrSignature},
		"no version":      {change: func(h http.Header) { h.Set(HeaderSignature, good[3:]) }, want: ErrSignature},
		"cut":             {change: func(h http.Header) { h.Set(HeaderSignature, good[:len(good)-2]) }, want: ErrSignature},
		"longer":          {change: func(h http.Header) { h.Set(HeaderSignature, good+"00") }, want: ErrSignature},
		"not hex":         {change: func(h http.Header) { h.Set(HeaderSignature, "v1=xyz") }, want: ErrSignature},
		"time not a number": {change: func(h http.Header) {
			h.Set(HeaderTimestamp, "now")
			h.Set(HeaderSignature, sign([]byte(testSecret), "now", []byte(body)))
		}, want: ErrTimestamp},
		"absurd time": {change: func(h http.Header) {
			h.Set(HeaderTimestamp, "-9223372036854775808")
			h.Set(HeaderSignature, sign([]byte(testSecret), "-9223372036854775808", []byte(body)))
		}, want: ErrTimestamp},
	} {
		h := http.Header{}
		h.Set(HeaderTimestamp, "1750000000")
		h.Set(HeaderSignature, good)
		if c.change != nil {
			c.change(h)
		}
		if c.secret == "" {
			c.secret = testSecret
		}
		if c.body == "" {
			c.body = body
		}
		err := Verify([]byte(c.secret), h, []byte(c.body), exampleTime.Add(c.after), 5*time.Minute)
		if !errors.Is(err, c.want) || (err != nil && strings.Contains(err.Error(), c.secret)) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	h := http.Header{}
	h.Set(HeaderTimestamp, "1750000000")
	h.Set(HeaderSignature, sign(nil, "1750000000", []byte(body)))
	if err := Verify(nil, h, []byte(body), exampleTime, time.Minute); !errors.Is(err, ErrSignature) {
		t.Errorf("without a secret: %v", err)
	}
}

// A receiver of webhook requests.
func ExampleVerify() {
	secret := []byte("the webhook's secret of at least 16 bytes")
	handle := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		if err := Verify(secret, r.Header, body, time.Now(), 5*time.Minute); err != nil {
			http.Error(w, "not signed", http.StatusUnauthorized)
			return
		}
		// Store the records, then say so.
		w.WriteHeader(http.StatusNoContent)
	}
	w := httptest.NewRecorder()
	handle(w, httptest.NewRequest("POST", "/feedback", strings.NewReader(`{"records":[]}`)))
	fmt.Println(w.Code)
	// Output: 401
}
