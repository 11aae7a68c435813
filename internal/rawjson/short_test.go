package rawjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// Everything that can be UTF-8 is; what cannot, and each number, stays as it was written.
func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		`"a b"`: `"a b"`, `-0`: `-0`, `null`: `null`, `[1]`: `[1]`, `{}`: `{}`,
		"{ \"a b\" :\t[ 1.50 , \" \\u0020\" ] ,\r\n\"a b\": { } }": `{"a b":[1.50,"  "],"a b":{}}`,
		`[1.0, 1e3, -0, 1E+2, 123456789012345678901234567890]`:     `[1.0,1e3,-0,1E+2,123456789012345678901234567890]`,
		`"\u4e2d\u6587\u00fc\u003c\/\u2028\u007f"`:                 "\"中文ü</\u2028\u007f\"",
		`"\ud83d\ude00"`: `"😀"`,
		`"\u0000\u0008\u0009\u000a\u000c\u000d\u001f\u0022\u005c"`: `"\u0000\b\t\n\f\r\u001f\"\\"`,
		`"\ud800"`:                          `"\ud800"`,
		`"\uDC00\u00e9\ud83d\ude00\ud83d"`:  `"\uDC00é😀\ud83d"`,
		`"\ud800\ud83d\ude00\n\"\\\ud800x"`: `"\ud800😀\n\"\\\ud800x"`,
		`"\\ud800\ud800\\u00e9"`:            `"\\ud800\ud800\\u00e9"`,
		`{"\u00e9\ud800": "\udfff"}`:        `{"é\ud800":"\udfff"}`,
	} {
		got := string(AppendShort([]byte("x"), []byte(in)))
		if got != "x"+want || string(Short([]byte(in))) != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	value := []byte(`{"a":[1,"b"]}`)
	if got := Short(value); &got[0] != &value[0] {
		t.Error("what is short already is copied")
	}
}

func TestByteOrderMark(t *testing.T) {
	const bom = "\xef\xbb\xbf"
	got, err := members(bom + ` {"a":1}`)
	if err != nil || strings.Join(got, "|") != `"a"=1` {
		t.Errorf("%q, %v", got, err)
	}
	if got, err = elements(bom + `[1, {"a":` + nested("[", "]", MaxDepth-3) + `}]`); err != nil || got[0] != "1" {
		t.Errorf("%q, %v", got, err)
	}
	if !Valid([]byte(bom+"1")) || Valid([]byte("1"+bom)) || Valid([]byte(bom+bom+"1")) || Valid([]byte(`{"a":`+bom+`1}`)) {
		t.Error("a mark counts elsewhere than in front")
	}
	for text, want := range map[string]byte{"": 0, bom: 0, bom + "\n [": '[', " {": '{'} {
		if got := Begin([]byte(text)); got != want {
			t.Errorf("%q begins with %q", text, got)
		}
	}
}

func FuzzShort(f *testing.F) {
	for _, s := range []string{`{"a":[1.0,{"b":null}],"a":"\ud800\u00e9"}`, ` [ 1 , "\ud83d\ude00\ud83d" ] `, `"\\\"\u002f"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text = bytes.TrimSpace(text)
		if !json.Valid(text) || !bytes.Equal(text, bytes.ToValidUTF8(text, nil)) {
			return
		}
		short := Short(text)
		meaning := func(text []byte) (v any) {
			dec := json.NewDecoder(bytes.NewReader(text))
			dec.UseNumber()
			if err := dec.Decode(&v); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			return v
		}
		if !reflect.DeepEqual(meaning(text), meaning(short)) {
			t.Fatalf("%s became %s", text, short)
		}
		if len(short) > len(text) || !bytes.Equal(Short(short), short) {
			t.Fatalf("%s is not the shortest form of %s", short, text)
		}
		want, err := jsontext.AppendFormat(nil, text, jsontext.AllowDuplicateNames(true))
		if err == nil && !bytes.Equal(short, want) { // there is no half of a surrogate pair
			t.Fatalf("%s, want %s", short, want)
		}
	})
}
