package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tokenList are so many device tokens as JSON.
func tokenList(n int) string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = fmt.Sprintf(`"%064x"`, i)
	}
	return "[" + strings.Join(tokens, " , ") + "]"
}

// What is put is hardly more than what was sent, whatever stands beside the tokens.
func TestLittleIsPutForLittle(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(" ", 65_000)
	for name, beside := range map[string]string{
		"blanks":            `"aps":{"alert":"x",` + long + `"badge":1}`,
		"blanks in data":    `"title":"t","data":{"a":[` + long + `1]}`,
		"zeros":             `"title":"t","priority":"` + strings.Repeat("0", 65_000) + `5"`,
		"zeros in ttl":      `"title":"t","ttl":"` + strings.Repeat("0", 65_000) + `5"`,
		"what is overruled": `"title":"` + strings.Repeat("x", 65_000) + `","aps":{"alert":"x"}`,
		"a sound overruled": `"sound":{"a":"` + strings.Repeat("x", 65_000) + `"},"aps":{"sound":"x"}`,
	} {
		tree := new(putTree)
		api := New(tree, Options{Outcomes: new(Outcomes)})
		api.Use(Settings{Keys: []Key{{Name: "k", Token: "k-0123456", Role: RoleSend}}})
		one := `{"topic":"` + topic + `","tokens":` + tokenList(400) + `,` + beside + `}`
		list := "[" + strings.Repeat(one+",", 29) + one + "]"
		if w := send(api.Network(), "k-0123456", "POST", "/v1/notifications", list); w.Code != 202 {
			t.Fatalf("%s: %d %s", name, w.Code, w.Body)
		}
		size := 0
		for _, job := range tree.jobs {
			size += len(job)
		}
		if len(tree.jobs) > 30 || size > len(list) {
			t.Errorf("%s: %d jobs of %d bytes for %d bytes", name, len(tree.jobs), size, len(list))
		}
	}
}

// A payload stays as it is, the rest is stored in its shortest form.
func TestStoredInTheShortestForm(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	api := New(tree, Options{Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: []Key{{Name: "k", Token: "k-0123456", Role: RoleSend}}})
	token := strings.Repeat("0", 64)
	for body, want := range map[string]string{
		`{ "topic" : "` + topic + `", "token" : "` + token + `", "data" : { "a b" : [ 1.0 , " x" ] } , "title" : " t\u0020 " }`: `{"token":"` + token + `","data":{"a b":[1.0," x"]},"title":" t  "} 0s`,
		`{"topic":"` + topic + `","token":"` + token + `", "payload": { "aps" : {} , "a":[ 1 ]}}`:                               `{"token":"` + token + `","payload":{ "aps" : {} , "a":[ 1 ]}} 0s`,
	} {
		tree.jobs = nil
		if w := send(api.Network(), "k-0123456", "POST", "/v1/notifications", body); w.Code != 202 || len(tree.jobs) != 1 || tree.jobs[0] != want {
			t.Errorf("%d %s: put %q", w.Code, w.Body, tree.jobs)
		}
	}
}

// A request pays for all jobs that it becomes before one of them is put, a stream
// afterwards.
func TestJobsArePaidBeforeTheyArePut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		one := `{"topic":"` + topic + `","title":"t","tokens":` + tokenList(3000) + `}`
		for _, of := range []struct {
			kind, body string
			left, want int
		}{
			{"application/json", one, 3, 0}, {"application/json", one, 4, 4}, {"application/json", "[" + one + "," + one + "]", 5, 4},
			{ndjson, one, 3, 4},
		} {
			tree := new(putTree)
			api := New(tree, Options{Outcomes: new(Outcomes)})
			api.Use(Settings{Keys: []Key{{Name: "slow", Token: "slow-0123", Role: RoleSend, Rate: 1}}})
			limit := api.access.Load().find("slow-0123").limit
			limit.ReserveN(time.Now(), int(limit.Tokens())-of.left)
			w := send(api.Network(), "slow-0123", "POST", "/v1/notifications", of.body, "Content-Type", of.kind)
			if len(tree.jobs) != of.want || of.want == 0 && w.Code != 429 {
				t.Errorf("%s with %d left: %d, %d jobs: %s", of.kind, of.left, w.Code, len(tree.jobs), w.Body)
			}
			var all resultList
			if of.left == 5 && (json.Unmarshal(w.Body.Bytes(), &all) != nil || all.Accepted != 1 || all.Refused != 1) {
				t.Errorf("%s", w.Body)
			}
		}
	})
}

// The page shows a bounded part of a job, in a time that grows with its size.
func TestShownJobIsBounded(t *testing.T) {
	deep := strings.Repeat("[", 500)
	for name, text := range map[string]string{
		"deep and long": deep + strings.Repeat("0,", 500_000) + "0" + strings.Repeat("]", 500),
		"deeper":        strings.Repeat("[", 9990) + strings.Repeat("0,", 500_000) + "0" + strings.Repeat("]", 9990),
		"token lists":   strings.Repeat(`"tokens":["token":"0123456789"`, 20_000),
		"tokens":        `{"tokens":` + tokenList(10_000) + `}`,
	} {
		began := time.Now()
		got := readable(text, nil)
		if len(got) > 2*maxShown || strings.Contains(got, "0123456789") || strings.Contains(got, strings.Repeat("0", 33)) {
			t.Errorf("%s: %d bytes: %.100s", name, len(got), got)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}
