package httpapi

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"propeller/queue"
	"propeller/supervisor"
)

// breakingTree panics when several jobs are put.
type breakingTree struct{ *putTree }

func (breakingTree) PutAll(context.Context, []supervisor.NewJob) []queue.Stored { panic("on purpose") }

// A panic ends the notifications that it met, and no others.
func TestPanicInList(t *testing.T) {
	t.Parallel()
	api := New(breakingTree{new(putTree)}, Options{Outcomes: new(Outcomes)})
	body := "[" + notification("") + "," + notification(`,"badge":"many"`) + "," + notification("") + "]"
	w := send(api.Socket(), "", "POST", "/v1/notifications", body)
	var got resultList
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 202 || len(got.Results) != 3 {
		t.Fatalf("%d %v %s", w.Code, err, w.Body)
	}
	for i, want := range []int{500, 400, 500} {
		if e := got.Results[i].Error; e == nil || e.Status != want || strings.Contains(e.Detail, "purpose") {
			t.Errorf("%d: %+v", i, e)
		}
	}
	if n := api.o.Outcomes.pending; n != 0 {
		t.Errorf("%d groups of puts under way for ever", n)
	}
}
