package jetstream

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// docs/queues.md says what the code does.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	size := fmt.Sprint(maxBody(1 << 20))
	for _, want := range []string{
		"stream `" + jobsStream + "`", "stream `" + buriedStream + "`",
		"`" + jobSubject("TUBE") + "`", "`" + schedSubject("TUBE", "ID") + "`", "`" + buriedSubject("TUBE", "ID") + "`",
		"header `" + headerID + "`", "header `" + headerPut + "`",
		jsSchedule, jsScheduleTarget,
		fmt.Sprintf("after %.0f s | after %.0f s", DefaultEmbeddedAckWait.Seconds(), DefaultAckWait.Seconds()),
		fmt.Sprintf("%.0f days", buriedAge.Hours()/24),
		size[:1] + "," + size[1:4] + "," + size[4:] + " bytes",
		fmt.Sprintf("less %d KiB", headerRoom>>10),
		fmt.Sprintf("Server %d.%d or newer", minMajor, minMinor),
		fmt.Sprintf("%d (default)", defaultReplicas),
		"`" + (&fullError{used: 75 << 30, free: 25 << 30}).Error() + "`", fmt.Sprintf("but for %d MiB", 2*trialSize>>20),
		"`" + fullPrefix + ">`", "`" + settlePrefix + ">`",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/queues.md does not say %q", want)
		}
	}
}
