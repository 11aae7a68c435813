package rawjson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// What is shown of a text is bounded, however deep and long it is.
func TestIndentIsBounded(t *testing.T) {
	const most = 10_000
	for name, text := range map[string]string{
		"deeper than allowed": strings.Repeat("[", 9990) + strings.Repeat("0,", 50_000) + "0" + strings.Repeat("]", 9990),
		"deep":                strings.Repeat("[", 500) + strings.Repeat("0,", 50_000) + "0" + strings.Repeat("]", 500),
		"deep objects":        strings.Repeat(`{"a":`, 500) + "0" + strings.Repeat("}", 500),
		"long":                `["` + strings.Repeat("é", 50_000) + `"]`,
		"many":                strings.Repeat("1,", 50_000),
	} {
		got := Indent(text, "", most)
		if len(got) > 2*most+100 || len(text) > 2*most && !strings.HasSuffix(got, "…") {
			t.Errorf("%s: %d bytes, ends with %q", name, len(got), got[len(got)-10:])
		}
		for line := range strings.Lines(got) {
			if len(line)-len(strings.TrimLeft(line, " ")) > 2*maxIndent {
				t.Errorf("%s: %q", name, line[:100])
			}
		}
	}
}

func TestIndent(t *testing.T) {
	text := ` {"a": [1.50,{"b":"\u00e9 ,[","c":[ ],"d":{}}, null ],"a":true}`
	var want bytes.Buffer
	if err := json.Indent(&want, []byte(strings.TrimSpace(text)), "> ", "  "); err != nil {
		t.Fatal(err)
	}
	if got := Indent(text, "> ", 1000); got != want.String() {
		t.Errorf("%s", got)
	}
	for _, other := range []string{"", "{", "x\ny"} {
		if got := Indent(other, "> ", 1000); got != other {
			t.Errorf("%q", got)
		}
	}
}
