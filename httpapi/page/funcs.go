package page

import (
	"fmt"
	"html/template"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/text"
)

// funcs say in words what the templates take. "–" is what is not known.
var funcs = template.FuncMap{ // never written to
	"seg":     url.PathEscape,
	"explain": apnsconn.Explain,
	"count":   func(n any) string { return text.Count(toInt64(n)) },
	"plural":  text.Plural,
	"ms":      milliseconds,
	"age":     func(since time.Time) string { return text.Age(time.Since(since)) },
	"moment":  func(at time.Time) string { return moment(at, time.Now()) },
	"future":  func(at time.Time) string { return future(at, time.Now()) },
	"expiry":  func(at time.Time) any { return expiry(at, time.Now()) },
	"rate":    perSecond,
	"chart":   newChart,
	"fate":    func(state string) string { return fates[state] },
}

func toInt64(n any) int64 {
	if n, ok := n.(int); ok {
		return int64(n)
	}
	return n.(int64)
}

func milliseconds(ms any) string {
	if ms, ok := ms.(float64); ok {
		return text.Millis(ms)
	}
	return text.Millis(float64(toInt64(ms)))
}

// moment is a time of today, or a day.
func moment(at, now time.Time) string {
	if now.Sub(at) < 20*time.Hour {
		return at.UTC().Format("15:04:05 UTC")
	}
	return at.UTC().Format("Jan 2 15:04 UTC")
}

// future is a time to come; "" for one that has passed.
func future(at, now time.Time) string {
	if !at.After(now) {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05 UTC")
}

// certificate says when one expires; both are "" without one.
type certificate struct{ When, Urgency string }

func expiry(at, now time.Time) certificate {
	when, urgency := text.Expiry(at, now)
	return certificate{when, urgency}
}

// perSecond is a rate; nil while it is not known.
func perSecond(rate *float64) string {
	switch {
	case rate == nil:
		return "–"
	case *rate > 0 && *rate < 100:
		return strconv.FormatFloat(*rate, 'f', 1, 64)
	}
	return text.Count(int64(math.Round(*rate)))
}

// chart is a line over ChartPoints by 24 units, from the left while there are fewer points.
type chart struct {
	Points string // its ends lie below the visible part, so that the area can be filled
	Top    string // its highest value
}

// ChartPoints is how many rates a chart shows.
const ChartPoints = 120

// newChart is nil if there is nothing to see, as with most apps where there are very many.
func newChart(rates []float64) *chart {
	if len(rates) == 0 || slices.Max(rates) == 0 {
		return nil
	}
	top := max(1, slices.Max(rates))
	high := func(rate float64) string { return strconv.FormatFloat(23-22*rate/top, 'f', 1, 64) }
	first := ChartPoints - len(rates)
	var line strings.Builder
	fmt.Fprintf(&line, "%d,26 %d,%s", first-1, first-1, high(rates[0]))
	for i, rate := range rates {
		fmt.Fprintf(&line, " %d,%s", first+i, high(rate))
	}
	fmt.Fprintf(&line, " %d,%s %d,26", ChartPoints+1, high(rates[len(rates)-1]), ChartPoints+1)
	return &chart{Points: line.String(), Top: perSecond(&top)}
}

// fates are what the states of a notification mean.
var fates = map[string]string{ // never written to
	"delayed":   "Waiting for its delay to end",
	"queued":    "In the queue",
	"trying":    "On its way to APNs",
	"delivered": "Accepted by APNs",
	"refused":   "APNs says the token is no longer valid",
	"buried":    "Set aside: it cannot be sent as it is",
	"expired":   "Too late, not sent",
	"finished":  "Ended",
}
