package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"
)

func members(text string) (out []string, err error) {
	err = Members([]byte(text), func(name, value []byte) error {
		out = append(out, string(name)+"="+string(value))
		return nil
	})
	return out, err
}

func elements(text string) (out []string, err error) {
	err = Elements([]byte(text), func(at int, value []byte) error {
		if !bytes.Equal([]byte(text)[at:at+len(value)], value) {
			return errors.New("another place")
		}
		out = append(out, string(value))
		return nil
	})
	return out, err
}

func nested(open, close string, depth int) string {
	return strings.Repeat(open, depth) + strings.Repeat(close, depth)
}

// Values are what was written, names may come twice, and blanks around them are no part.
func TestPieces(t *testing.T) {
	many := strings.Repeat(`,{ "x":[] }`, MaxDepth) // read token by token
	for _, tail := range []string{"", many} {
		got, err := elements(" [ 1.50 ,\"a\\u0041\\ud800\",\n{\"k\" : [ 1 , 2 ],\"k\":{}} , null" + tail + "] ")
		want := `1.50|"a\u0041\ud800"|{"k" : [ 1 , 2 ],"k":{}}|null`
		if err != nil || strings.Join(got[:4], "|") != want || len(tail) > 0 && got[len(got)-1] != `{ "x":[] }` {
			t.Errorf("%q, %v", got[:4], err)
		}
		got, err = members(` { "a" : [ {} ] , "a":-0e1,"":"}" , "l":[0` + tail + `] } `)
		if err != nil || strings.Join(got[:3], "|") != `"a"=[ {} ]|"a"=-0e1|""="}"` || got[3] != `"l"=[0`+tail+`]` {
			t.Errorf("%q, %v", got[:3], err)
		}
	}
}

// A text is read to its end, whatever f says of its beginning; what is no JSON goes first.
func TestFaults(t *testing.T) {
	mine := errors.New("mine")
	for _, text := range []string{"", " ", "{", `{"a"}`, `{"a":1,}`, `{"a":1}{}`, `{"a":1} x`, `{"a":01}`, `{"a":"` + "\n" + `"}`, `{"a":1]`, `{1:2}`, "[1]]", "nul"} {
		calls := 0
		err := Members([]byte(text), func(_, _ []byte) error {
			calls++
			return mine
		})
		if _, ok := errors.AsType[*SyntaxError](err); !ok || calls > 1 || Valid([]byte(text)) {
			t.Errorf("%q: %v after %d calls", text, err, calls)
		}
	}
	if err := Members([]byte(`{"a":1,"b":2}`), func(_, _ []byte) error { return mine }); err != mine {
		t.Errorf("f's error is %v", err)
	}
	if _, err := members(`[1]`); err != ErrKind {
		t.Errorf("a list is %v", err)
	}
	if _, err := elements(`"["`); err != ErrKind {
		t.Errorf("a string is %v", err)
	}
	if _, err := elements(`["` + strings.Repeat("name", 1000) + `" 5]`); err == nil || len(err.Error()) > 200 || strings.Contains(err.Error(), "namename") {
		t.Errorf("%v", err)
	}
}

func TestDepth(t *testing.T) {
	for _, kind := range [][2]string{{"[", "]"}, {`{"a":[`, `]}`}} {
		step := strings.Count(kind[0], "[") + strings.Count(kind[0], "{")
		deepest := nested(kind[0], kind[1], MaxDepth/step)
		if _, err := elements(deepest); err != nil && err != ErrKind {
			t.Errorf("%d deep: %v", MaxDepth, err)
		}
		if !Valid([]byte(deepest)) || Valid([]byte("["+deepest+"]")) {
			t.Errorf("%s: the bound is not %d", kind[0], MaxDepth)
		}
		if _, err := elements("[" + deepest + "]"); err != ErrDepth {
			t.Errorf("%d deep: %v", MaxDepth+1, err)
		}
	}
	if wide := "[" + strings.Repeat("[],", 2*MaxDepth) + "[]]"; !Valid([]byte(wide)) {
		t.Error("a wide list counts as a deep one")
	}
}

// A decoder that waits for its next use keeps no text alive.
func TestTextIsLetGo(t *testing.T) {
	text := make([]byte, 1<<20)
	gone := make(chan struct{})
	copy(text, bytes.Repeat([]byte(" "), len(text)))
	copy(text, `{"a":[1,2]}`)
	runtime.AddCleanup(&text[0], func(c chan struct{}) { close(c) }, gone)
	held := open(text) // not given back to the pool, which GC empties
	if _, err := held.value(); err != nil {
		t.Fatal(err)
	}
	text = nil
	held.forget()
	runtime.GC()
	<-gone
	runtime.KeepAlive(held)
}

func FuzzPieces(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}],"a":"\ud800"}`, ` [ 1 , "x" ] `, `{}`, `[`, "\xff", `{"a":1}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		valid := Valid(text)
		if valid != json.Valid(text) && bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) <= MaxDepth {
			t.Fatalf("valid: %v", valid)
		}
		piece := func(value []byte) {
			if !json.Valid(value) || len(bytes.TrimSpace(value)) != len(value) {
				t.Fatalf("%q", value)
			}
		}
		err := Members(text, func(name, value []byte) error { piece(name); piece(value); return nil })
		other := Elements(text, func(at int, value []byte) error { piece(value); return nil })
		if valid != (err == nil || err == ErrKind) || valid != (other == nil || other == ErrKind) || err == nil && other == nil {
			t.Fatalf("%v, %v", err, other)
		}
	})
}
