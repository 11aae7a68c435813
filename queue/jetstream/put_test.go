package jetstream

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// A put that was not sent, or was refused, has stored nothing; of any other that
// failed nobody knows.
func TestPutUncertain(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	for name, c := range map[string]struct {
		answer    string
		err       error
		uncertain bool
	}{
		"no answer":          {"", errNoAnswer, true},
		"the caller left":    {"", context.Canceled, true},
		"not an answer":      {"{", nil, true},
		"no number":          {"{}", nil, true},
		"nobody there":       {"", errNoResponders, false},
		"not sent":           {"", &notSentError{nats.ErrConnectionClosed}, false},
		"too large":          {"", queue.ErrRejected, false},
		"storage is full":    {`{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}`, nil, false},
		"the stream's limit": {`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}`, nil, false},
	} {
		_, err := q.stored(t.Context(), "tube", "", &nats.Msg{Data: []byte(c.answer)}, c.err)
		if err == nil || errors.Is(err, queue.ErrUncertain) != c.uncertain {
			t.Errorf("%s: %v", name, err)
		}
	}
}
