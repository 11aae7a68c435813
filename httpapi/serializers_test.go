package httpapi

import (
	"strings"
	"testing"
)

// Every way in takes what serializers write: a byte order mark, escapes, nulls and PHP's
// empty lists.
func TestEveryEntranceTakesWhatSerializersWrite(t *testing.T) {
	t.Parallel()
	const bom = "\xef\xbb\xbf"
	const more = `,"body":"\u4e2d\/","badge":3,"aps":{"badge":null,"alert":[]},"data":[]`
	stored := `{"token":"` + goodToken + `","title":"x","body":"中/","badge":3,"aps":{"badge":null,"alert":[]},"data":[]} 0s`
	one := notification(more)
	for name, test := range map[string]struct {
		body, kind string
		jobs       int
	}{
		"one":    {bom + one, "", 1},
		"a list": {bom + "\n[" + one + "," + one + "]", "", 2},
		"stream": {bom + one + "\r\n" + one + "\n", ndjson, 2},
	} {
		tree := new(putTree)
		w := send(newKeyed(tree), "sender-0123", "POST", "/v1/notifications", test.body, "Content-Type", test.kind)
		if w.Code != 202 || len(tree.jobs) != test.jobs || tree.jobs[0] != stored || tree.jobs[test.jobs-1] != stored {
			t.Errorf("%s: %d %s\n%q", name, w.Code, w.Body, tree.jobs)
		}
	}
	tree := new(putTree)
	h := newKeyed(tree)
	job := bom + strings.Replace(one, `"topic":"`+topic+`",`, "", 1)
	if w := send(h, "sender-0123", "POST", "/v1/apps/"+topic+"/jobs", job); w.Code != 200 || len(tree.jobs) != 1 || !strings.HasPrefix(tree.jobs[0], job) {
		t.Errorf("a job: %d %s %q", w.Code, w.Body, tree.jobs)
	}
}
