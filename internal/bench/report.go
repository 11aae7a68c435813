package bench

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"

	"propeller/internal/text"
)

// Print writes the figures for people.
func (f *Figures) Print(w io.Writer) error {
	return PrintRows(w, [][2]string{
		{"machine", f.Machine},
		{"queue", f.Queue},
		{"apns", f.APNs},
		{"load", f.Load},
		{"rate", fmt.Sprintf("%s pushes/s: %s in %s; put at %s jobs/s", text.Count(int64(f.Rate)), text.Count(f.Pushes), Seconds(f.Took), text.Count(int64(f.PutRate)))},
		{"cpu per push", fmt.Sprintf("%.2f µs here, stand-in %.2f µs", f.CPU, f.APNsCPU)},
		{"cores busy", f.Cores.String()},
		{"memory", known(f.PeakMiB > 0, "%.0f MiB at most", f.PeakMiB)},
		{"tried again", known(f.Again > 0, "%s pushes", text.Count(f.Again))},
		{"limited by", f.Limit + ": " + f.Why},
		{"latency", f.Latency.String()},
	})
}

// known is the text, or "" for what is not known or not there.
func known(is bool, format string, value any) string {
	if !is {
		return ""
	}
	return fmt.Sprintf(format, value)
}

// String is empty when nothing was measured.
func (l *Latency) String() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, longest %.2f ms from put to the request's arrival at the stand-in, of %s at %.0f a second",
		l.P50, l.P99, l.Max, text.Plural(int(l.Jobs), "job"), l.Rate)
}

// Seconds is s as a person reads it.
func Seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond).String()
}

// PrintRows prints names and values, without those that have none.
func PrintRows(w io.Writer, rows [][2]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
		}
	}
	return t.Flush()
}

// Machine is where it was measured.
func Machine() string {
	return fmt.Sprintf("%s %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
}
