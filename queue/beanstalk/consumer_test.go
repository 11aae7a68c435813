package beanstalk

import "testing"

// Over several servers, leaders that get jobs while helpers still wait for
// theirs stop when one job per server is more than is wanted.
func TestMayReserve(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		servers, want, ready, reserving int
		leader, helper                  bool
	}{
		{1, 0, 0, 0, false, false},
		{1, 5, 0, 4, true, true},
		{1, 5, 1, 4, false, false},
		{3, 0, 0, 0, false, false},
		{3, 5, 0, 4, true, true},
		{3, 5, 0, 5, true, false}, // helpers, perhaps at a server that has none
		{3, 5, 2, 5, true, false},
		{3, 5, 3, 5, false, false},
		{3, 5, 5, 0, false, false},
	} {
		c := &consumer{loops: make([]*connLoop, test.servers), reserving: test.reserving}
		c.Want, c.Waiting = test.want, make([]*job, test.ready)
		if leader, helper := c.mayReserveLocked(true), c.mayReserveLocked(false); leader != test.leader || helper != test.helper {
			t.Errorf("%+v: leader %v, helper %v", test, leader, helper)
		}
	}
}
