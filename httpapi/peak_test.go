package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/internal/peakheap"
	"propeller/queue"
	"propeller/supervisor"
)

// sinkTree keeps nothing of the jobs that are put.
type sinkTree struct{ putTree }

func (*sinkTree) Put(context.Context, string, []byte, time.Duration) (string, error) {
	return "1", nil
}

func (*sinkTree) PutAll(_ context.Context, jobs []supervisor.NewJob) []queue.Stored {
	return make([]queue.Stored, len(jobs))
}

func (*sinkTree) Status() []supervisor.AppStatus {
	return []supervisor.AppStatus{{Name: topic, Topic: topic}}
}

// nowhere is a client that reads answers and keeps nothing.
type nowhere struct{ head http.Header }

func (n nowhere) Header() http.Header         { return n.head }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// No request takes more memory than befits its size.
func TestPeakOfARequest(t *testing.T) {
	const n = 2 << 20
	token := strings.Repeat("0", 64)
	fill := func(each string) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			if strings.Contains(each, "%") {
				fmt.Fprintf(&b, each, i)
			} else {
				b.WriteString(each)
			}
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	usual := func(of string) string { return `{"topic":"` + topic + `","title":"t",` + of + `}` }
	bodies := map[string]string{
		"commas":             usual(`"tokens":["` + fill(",,,,") + `"]`),
		"numbers":            usual(`"tokens":[` + fill("%d,") + `]`),
		"short tokens":       usual(`"tokens":[` + fill(`"%08x",`) + `]`),
		"usual tokens":       usual(`"tokens":[` + fill(`"%064x",`) + `]`),
		"keys":               usual(fill(`"k%d":1,`)),
		"keys of aps":        usual(`"token":"` + token + `","aps":{` + fill(`"k%d":1,`) + `}`),
		"keys of data":       usual(`"token":"` + token + `","data":{` + fill(`"k%d":1,`) + `}`),
		"deep":               usual(`"token":"` + token + `","data":{"a":` + fill("[")),
		"escapes":            usual(`"token":"` + token + `","ref":"` + fill(`\u0041`) + `"`),
		"a long number":      usual(`"token":"` + token + `","relevance_score":` + fill("1")),
		"long digits":        usual(`"token":"` + token + `","priority":"` + fill("0") + `5"`),
		"blanks":             usual(fill(" ") + `"token":"` + token + `"`),
		"blanks in the aps":  usual(`"tokens":[` + strings.Repeat(`"`+token+`",`, 999) + `"00"],"aps":{"badge":` + fill(" ") + `1}`),
		"a list of ones":     `[` + fill("1,") + `]`,
		"a list of nothings": `[` + fill("{},") + `]`,
		"a list of deep":     `[` + fill("[") + `]`,
		"ids":                `{"ids":[` + fill(`"",`) + `]}`,
	}
	api := New(new(sinkTree), Options{Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: []Key{{Name: "k", Token: "k-0123456", Role: RoleAdmin}}})
	h := api.Network()
	for _, path := range []string{"/v1/lint", "/v1/notifications", "/v1/apps/" + topic + "/jobs", "/v1/apps/" + topic + "/buried/kick"} {
		for name, body := range bodies {
			if !strings.HasPrefix(path, "/v1/apps") == (name == "ids") {
				continue
			}
			if strings.HasPrefix(path, "/v1/apps") {
				body = body[:min(len(body), maxBody)]
			}
			most := 8*len(body) + 1<<20
			took, ok := peakheap.Within(most, func() {
				r := httptest.NewRequest("POST", path, io.NopCloser(strings.NewReader(body)))
				r.Header.Set("Authorization", "Bearer k-0123456")
				h.ServeHTTP(nowhere{make(http.Header)}, r)
			})
			if !ok {
				t.Errorf("%s of %d bytes, %s: %d at the peak, at most %d are allowed", path, len(body), name, took, most)
			}
		}
	}
}

// Whatever reads a body counts for the key's rate.
func TestBodiesCountForTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		for _, path := range []string{"/v1/lint", "/v1/notifications", "/v1/apps/" + topic + "/jobs", "/v1/apps/" + topic + "/buried/kick", "/v1/apps/" + topic + "/buried/delete"} {
			api := New(new(sinkTree), Options{Outcomes: new(Outcomes)})
			api.Use(Settings{Keys: []Key{{Name: "slow", Token: "slow-0123", Role: RoleAdmin, Rate: 1}}})
			h := api.Network()
			limit := api.access.Load().find("slow-0123").limit
			limit.ReserveN(time.Now(), int(limit.Tokens())-1)
			if w := send(h, "slow-0123", "POST", path, `{`); w.Code == 429 {
				t.Errorf("%s: the first is refused: %s", path, w.Body)
			}
			if w := send(h, "slow-0123", "POST", path, `{`); w.Code != 429 || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: the second: %d %s", path, w.Code, w.Body)
			}
		}
	})
}
