package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// The table has a line for each run, and one failed run fails the series.
func TestTable(t *testing.T) {
	t.Parallel()
	good := &result{engine: "beanstalkd", seed: 3, account: &account{put: 70, delivered: 60}}
	bad := &result{engine: "nats", seed: 4, account: &account{put: 5, lost: []uint32{1}}, stalls: 2, faults: []string{"a", "b", "c"}, err: errFailed, dir: "/x"}
	broken := &result{engine: "embedded", seed: 4, err: errors.New("no port")}
	var b strings.Builder
	if err := table(&b, []*result{good}); err != nil {
		t.Errorf("a good run: %v", err)
	}
	b.Reset()
	if err := table(&b, []*result{good, bad, broken}); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "2 of 3") {
		t.Errorf("error %v", err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	want := []string{"engine seed result", "beanstalkd 3 passed 70 60 0 0 0 0", "nats 4 FAILED 5 0 1 2 0 3", "embedded 4 BROKEN 0"}
	for i, w := range want {
		if len(lines) != len(want) || !strings.HasPrefix(strings.Join(strings.Fields(lines[i]), " "), w) {
			t.Errorf("table:\n%s\nwant %q", b.String(), want)
			break
		}
	}
	if err := bad.failure(); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "/x") {
		t.Errorf("failure %v", err)
	}
}

func TestEngines(t *testing.T) {
	t.Parallel()
	o, err := parseOptions(nil, func(name string) string {
		return map[string]string{"CHAOS_ENGINE": "all", "CHAOS_SEEDS": "8", "CHAOS_SEED": "5"}[name]
	})
	if err != nil || fmt.Sprint(o.engines(), o.seed, o.seeds) != "[beanstalkd embedded nats] 5 8" {
		t.Errorf("%v %+v", err, o)
	}
	for _, wrong := range [][]string{{"-queue", "redis"}, {"-seeds", "0"}, {"-queue", "beanstalk"}} {
		if _, err := parseOptions(wrong, func(string) string { return "" }); err == nil {
			t.Errorf("%q: no error", wrong)
		}
	}
	if o, err := parseOptions(nil, func(string) string { return "" }); err != nil || fmt.Sprint(o.engines()) != "[beanstalkd]" {
		t.Errorf("by default: %v %v", o.engines(), err)
	}
}
