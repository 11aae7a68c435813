package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// print returns what prints the figures.
func (f *Figures) print(asJSON bool) func(io.Writer) error {
	if asJSON {
		return func(w io.Writer) error { return printJSON(w, f) }
	}
	return func(w io.Writer) error {
		return printRows(w, [][2]string{
			{"machine", f.Machine},
			{"queue", f.Queue},
			{"apns", f.APNs},
			{"load", f.Load},
			{"rate", fmt.Sprintf("%s pushes/s: %s in %s; put at %s jobs/s", thousands(int64(f.Rate)), thousands(f.Pushes), roundTime(seconds(f.Took)), thousands(int64(f.PutRate)))},
			{"cpu per push", f.cpu()},
			{"cores busy", f.Cores.String()},
			{"memory", fmt.Sprintf("%.0f MiB at most", f.PeakMiB)},
			{"tried again", f.again()},
			{"limited by", f.Limit + ": " + f.Why},
			{"latency", f.Latency.String()},
		})
	}
}

func (f *Figures) cpu() string {
	text := fmt.Sprintf("%.2f µs here", f.CPU)
	if f.QueueCPU > 0 {
		text += fmt.Sprintf(", beanstalkd %.2f µs", f.QueueCPU)
	}
	if f.APNsCPU > 0 {
		text += fmt.Sprintf(", stand-in %.2f µs", f.APNsCPU)
	}
	return text
}

func (f *Figures) again() string {
	if f.Again == 0 {
		return ""
	}
	return thousands(f.Again) + " pushes"
}

// String is empty when nothing was measured.
func (l *benchLatency) String() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, longest %.2f ms %s, of %s at %.0f a second", l.P50, l.P99, l.Max, l.From, count(int(l.Jobs), "job"), l.Rate)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// printRows prints names and values, without those that have none.
func printRows(w io.Writer, rows [][2]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
		}
	}
	return t.Flush()
}

// roundTime is d as a person reads it.
func roundTime(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
