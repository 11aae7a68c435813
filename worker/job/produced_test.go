package job

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestProducersWriteNoAgain(t *testing.T) {
	t.Parallel()
	app := Rules{Topic: "com.example.app"}
	token := strings.Repeat("0", 64)
	plain := `{"tokens":["` + token + `"],"title":"x"`
	if j, err := app.ParseProduced([]byte(plain+`}`), time.Now(), 0); err != nil || len(j.Tokens) != 1 {
		t.Errorf("%+v, %v", j, err)
	}
	again := `,"again":{"job":"17","seed":"` + strings.Repeat("0", 2*len(Seed{})) + `","put":1,"attempt":1}}`
	if _, err := Parse([]byte(plain+again), "com.example.app", ""); err != nil {
		t.Fatalf("the daemon's own: %v", err)
	}
	_, err := app.ParseProduced([]byte(plain+again), time.Now(), 0)
	if bad, ok := errors.AsType[*Error](err); !ok || bad.Key != "again" {
		t.Errorf("%v, want an error about again", err)
	}
}
