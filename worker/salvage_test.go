package worker

import (
	"strings"
	"testing"
	"testing/synctest"
)

// Whatever is wrong with a job, and wherever: its record has the address and the ref that
// can be read.
func TestRecordsOfJobsThatCannotWork(t *testing.T) {
	other := manyTokens(1)[0]
	const ref = `"ref":"order 7"`
	long := strings.Repeat("ü", 256)
	for job, want := range map[string]string{
		`{"colour":1,` + tok + `,` + ref + `}`:                               testToken + " order 7",
		`{"badge":"x",` + ref + `,` + tok + `}`:                              testToken + " order 7",
		`{"title":"a","title":"b",` + tok + `,` + ref + `}`:                  testToken + " order 7",
		`{"token_since":"soon",` + ref + `,` + tok + `}`:                     testToken + " order 7",
		`{"token_since":99999999999999,` + ref + `,` + tok + `}`:             testToken + " order 7",
		`{` + tok + `,` + ref + `,"aps":{"a":1,"a":2}}`:                      testToken + " order 7",
		`{"again":{},` + tok + `,` + ref + `}`:                               testToken + " order 7",
		`{` + tok + `,` + ref + `,"title":"cut o`:                            testToken + " order 7",
		`{` + tok + `,` + ref + `}}`:                                         testToken + " order 7",
		"{\"title\":\"M\xfcller\"," + tok + `,` + ref + `}`:                  testToken + " order 7",
		"{" + tok + ",\"ref\":\"M\xfcller\"}":                                testToken + " Mller",
		`{` + tok + `,"title":"t","ref":4711}`:                               testToken + " 4711",
		`{` + tok + `,"title":"t","ref":"` + long + `"}`:                     testToken + " " + long[:256],
		`{` + ref + `,"title":"t"}`:                                          " order 7",
		`{` + ref + `,"title":"t","token":"xyz ü"}`:                          "xyz ü order 7",
		`{` + ref + `,"title":"t","token":"` + other + `\n"}`:                other + "\n order 7",
		`{` + ref + `,"title":"t","token":["` + testToken + `"]}`:            testToken + " order 7",
		`{` + ref + `,"title":"t","tokens":"` + testToken + `"}`:             testToken + " order 7",
		`{"x":1,"tokens":["` + other + `","` + testToken + `"],` + ref + `}`: other + " order 7|" + testToken + " order 7",
		`{"x":1,"tokens":["zz","` + testToken + `"],` + ref + `}`:            testToken + " order 7|zz order 7",
		`{` + tok + `,"tokens":["` + other + `"],` + ref + `}`:               other + " order 7|" + testToken + " order 7",
		`{` + tok + `,"tokens":"zz",` + ref + `}`:                            testToken + " order 7|zz order 7",
		`{"x":1,"channel_id":"eA==",` + ref + `}`:                            "eA== order 7",
		`{"channel_id":"eA==",` + tok + `,` + ref + `}`:                      testToken + "eA== order 7",
		`[` + tok + `]`:               " ",
		`{"token":{"a":1},"ref":[1]}`: " ",
	} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(job)
			b := newBench(t, q)
			b.start()
			synctest.Wait()
			b.halt(t)
			var got []string
			for _, r := range b.rec.all() {
				if r.Class != "rejected" || r.Reason == "" || strings.Contains(r.Reason, testToken) {
					t.Errorf("%s: %+v", job, r)
				}
				got = append(got, r.Token+r.ChannelID+" "+r.Ref)
			}
			if g := strings.Join(got, "|"); g != want {
				t.Errorf("%s:\n%q, want %q", job, g, want)
			}
			if len(q.buried) != 1 {
				t.Errorf("%s: %d buried", job, len(q.buried))
			}
		})
	}
}
