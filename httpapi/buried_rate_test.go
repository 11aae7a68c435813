package httpapi

import (
	"net/http"
	"testing"
	"testing/synctest"
)

// A look at buried jobs counts for its key's rate.
func TestBuriedCountsForTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := New(new(putTree), Options{})
		api.Use(Settings{Keys: []Key{{Name: "reader", Token: "reader-0123", Role: RoleRead, Rate: 1}}})
		h := api.Network()
		refused := 0
		for range 1010 {
			if w := send(h, "reader-0123", "GET", "/v1/apps/"+topic+"/buried?limit=1", ""); w.Code == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused != 10 {
			t.Errorf("%d refused of 10 above the rate", refused)
		}
	})
}
