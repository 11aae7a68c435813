package job

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// worstShapes are texts of about n bytes that take much to read, for their size.
func worstShapes(n int) map[string]string {
	many := func(each string) string { return strings.TrimSuffix(strings.Repeat(each, n/len(each)), ",") }
	numbered := func(each string) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintf(&b, each, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	usual := func(of string) string { return `{"token":"` + testToken + `",` + of + `}` }
	deep := func(open, close string) string {
		return strings.Repeat(open, n/(len(open)+len(close))) + "1" + strings.Repeat(close, n/(len(open)+len(close)))
	}
	return map[string]string{
		"commas in a string":       usual(`"title":"` + strings.Repeat(",", n) + `"`),
		"commas in a token":        `{"tokens":["` + strings.Repeat(",", n) + `"]}`,
		"commas in a list":         `{"tokens":[` + many(`",",`) + `]}`,
		"numbers for tokens":       `{"tokens":[` + numbered("%d,") + `]}`,
		"short tokens":             `{"tokens":[` + numbered(`"%08x",`) + `],"title":"t"}`,
		"short tokens behind one":  `{"tokens":["` + testToken + `",` + numbered(`"%08X",`) + `],"title":"t"}`,
		"no tokens among tokens":   `{"tokens":[` + numbered(`"%08x","",[],"zz%[1]d",`) + `],"title":"t"}`,
		"escaped tokens":           `{"tokens":[` + numbered(`"\u0061%07x",`) + `],"title":"t"}`,
		"deep lists":               usual(`"data":{"a":` + deep("[", "]") + `}`),
		"deep objects":             usual(`"aps":` + deep(`{"a":`, `}`)),
		"deep tokens":              `{"tokens":[` + deep("[", "]") + `]}`,
		"keys":                     `{` + numbered(`"k%d":1,`) + `}`,
		"keys of aps":              usual(`"aps":{` + numbered(`"k%d":1,`) + `}`),
		"keys of an alert":         usual(`"aps":{"alert":{` + numbered(`"k%d":1,`) + `}}`),
		"keys of data":             usual(`"data":{` + numbered(`"k%d":1,`) + `}`),
		"keys of a payload":        usual(`"payload":{` + numbered(`"k%d":1,`) + `}`),
		"keys of aps of a payload": usual(`"payload":{"aps":{` + numbered(`"k%d":1,`) + `}}`),
		"keys of again":            usual(`"again":{` + numbered(`"k%d":1,`) + `}`),
		"a long key":               usual(`"` + strings.Repeat("k", n) + `":1`),
		"an escaped key":           usual(`"` + strings.Repeat(`\u006b`, n/6) + `":1`),
		"escapes":                  usual(`"title":"` + strings.Repeat(`\u0041`, n/6) + `"`),
		"escapes in a ref":         usual(`"ref":"` + strings.Repeat(`\n`, n/2) + `"`),
		"escapes in a token":       `{"tokens":["` + strings.Repeat(`\u0061`, n/6) + `"]}`,
		"a long number":            usual(`"relevance_score":` + strings.Repeat("1", n)),
		"long digits":              usual(`"badge":"` + strings.Repeat("0", n) + `1"`),
		"blanks":                   `{` + strings.Repeat(" ", n) + `"token":"` + testToken + `","title":"t"}`,
		"blanks in data":           usual(`"data":{"a":[` + strings.Repeat("\n", n) + `1]}`),
		"blanks in tokens":         `{"tokens":["` + testToken + `",` + strings.Repeat(" ", n) + `"abcdef01"],"title":"t"}`,
		"a string without an end":  usual(`"title":"` + strings.Repeat("x", n)),
		"an object without an end": `{"a":` + strings.Repeat(`{"a":{"a":`, n/10),
		"no UTF-8":                 usual(`"title":"` + strings.Repeat("\xff", n) + `"`),
	}
}

// growth is by how much more of the process's time do takes for a text four times as
// large: the medians of five.
func growth(do func(text string), small, large string) float64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what one leaves behind is not to be counted as another's
	var took [2][]time.Duration
	runtime.GC()
	for range 5 {
		for i, text := range []string{small, large} {
			runs, began := 0, cpuTime()
			for runs == 0 || cpuTime()-began < time.Millisecond { // the clock's steps must not matter
				do(text)
				runs++
			}
			took[i] = append(took[i], (cpuTime()-began)/time.Duration(runs))
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return float64(took[1][2]) / math.Max(1, float64(took[0][2]))
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a job takes to read grows with its size, not with the square of it.
func TestParsersAreLinear(t *testing.T) {
	parsers := map[string]func(text string){
		"ParseJob": func(s string) { _, _ = Parse([]byte(s), topic, "1") },
		"ParseEnvelope": func(s string) {
			if e, err := ParseEnvelope([]byte(s), time.Now()); err == nil {
				if j, err := e.Parse(&Rules{Topic: e.Topic}, time.Now()); err == nil {
					_, _ = Split(e.Job, &j, 16<<10)
				}
			}
		},
		"BurialOf": func(s string) { BurialOf([]byte(s), topic) },
		"Kicked":   func(s string) { Kicked([]byte(s)); AsPut([]byte(s)) },
	}
	const n = 16 << 10
	small, large := worstShapes(n), worstShapes(4*n)
	for shape := range small {
		for name, parse := range parsers {
			by := 9.0
			for range 4 { // others on the machine may disturb one measurement
				if by > 8 {
					by = growth(parse, small[shape], large[shape])
				}
			}
			if by > 8 {
				t.Errorf("%s of %s: %.1f times as much for 4 times the size", name, shape, by)
			}
		}
	}
}
