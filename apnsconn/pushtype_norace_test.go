//go:build !race

package apnsconn

import "testing"

// TestInferPushTypeAllocatesNothing is not for the race detector, with which pools
// forget on purpose.
func TestInferPushTypeAllocatesNothing(t *testing.T) {
	n := validNotification()
	if got := testing.AllocsPerRun(100, func() { _ = InferPushType(n.Topic, n.Payload) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
