package feedback

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/queue/beanstalk/beanstalktest"
)

func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/feedback.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section returns the text from the heading to the next one.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(document(t), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/feedback.md has no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// firstColumn returns the names in code style that begin rows of tables.
func firstColumn(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// The document's table has the record's keys, in their order.
func TestDocumentedRecord(t *testing.T) {
	t.Parallel()
	var keys []string
	for f := range reflect.TypeFor[Record]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys = append(keys, name)
	}
	if got := firstColumn(section(t, "The record")); !slices.Equal(got, keys) {
		t.Errorf("docs/feedback.md has %v, Record has %v", got, keys)
	}
}

// The document's headers are those sent, and its figures are the constants.
func TestDocumentedWebhook(t *testing.T) {
	t.Parallel()
	w := NewWebhook(WebhookConfig{URL: "http://user:password@127.0.0.1/", Secrets: [][]byte{[]byte(testSecret)}})
	r, err := w.request(t.Context(), []byte("{}"), exampleTime)
	if err != nil {
		t.Fatal(err)
	}
	documented := firstColumn(section(t, "The webhook"))
	for name := range r.Header {
		if name != "User-Agent" && name != "Idempotency-Key" && !slices.Contains(documented, name) {
			t.Errorf("docs/feedback.md lacks the header %s", name)
		}
	}
	for _, name := range documented {
		if name != "Authorization" && r.Header.Get(name) == "" {
			t.Errorf("the header %s is documented, not sent", name)
		}
	}
	text := section(t, "The webhook")
	for _, figure := range []string{
		fmt.Sprintf("1 to %d records", maxBatch), fmt.Sprintf("%d KiB", maxBatchBytes>>10),
		fmt.Sprintf("within %.0f s", RequestTime.Seconds()), fmt.Sprintf("after %.0f s at first", minPause.Seconds()),
		fmt.Sprintf("up to %.0f minutes", maxPause.Minutes()),
	} {
		if !strings.Contains(text, figure) {
			t.Errorf("docs/feedback.md lacks %q", figure)
		}
	}
	if !strings.Contains(document(t), fmt.Sprintf("more than %d bytes", maxText)) {
		t.Error("docs/feedback.md says otherwise where texts are cut")
	}
}

// The receivers in the document take what a webhook sends, and nothing else: with
// each kind of secret, and with either while one is replaced. The one in Node uses
// Standard Webhooks' own library.
func TestDocumentedReceivers(t *testing.T) {
	t.Parallel()
	const standard = "whsec_MDEyMzQ1Njc4OWFiY2RlZg==" // 0123456789abcdef
	for _, language := range []struct{ run, program, flag string }{
		{"receiver", "python3", "-c"},
		{"node receiver", "node", "-e"},
	} {
		code := regexp.MustCompile("(?s)<!-- run: " + language.run + " -->\n```[a-z]+\n(.*?)```").FindStringSubmatch(document(t))
		if code == nil {
			t.Fatalf("docs/feedback.md has no %s", language.run)
		}
		for name, c := range map[string]struct {
			knows string
			keys  []string
		}{
			"raw":      {testSecret, []string{testSecret}},
			"standard": {standard, []string{"0123456789abcdef"}},
			"new":      {standard, []string{"0123456789abcdef", testSecret}},
			"old":      {testSecret, []string{"0123456789abcdef", testSecret}},
		} {
			t.Run(language.program+" "+name, func(t *testing.T) {
				t.Parallel()
				lines, port := startReceiver(t, c.knows, language.program, language.flag, code[1])
				testReceiver(t, lines, "http://127.0.0.1:"+port+"/", c.keys)
			})
		}
	}
}

func testReceiver(t *testing.T, lines *bufio.Scanner, url string, keys []string) {
	forged, err := NewWebhook(WebhookConfig{URL: url, Secrets: [][]byte{[]byte("somebody else's")}}).
		request(t.Context(), []byte(`{"records":[{"class":"token","token":"forged","at":""}]}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(forged)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != 401 {
		t.Errorf("a forgery was answered %d", resp.StatusCode)
	}
	q := openQueue(t, beanstalktest.Start(t))
	putRecords(t, q, 0, 1)
	buried := testRecord(1)
	buried.Class, buried.Reason, buried.Ref = "rejected", "BadCollapseId", "größe"
	if err := Writer(q, testTube)(ctxOf(t), buried); err != nil {
		t.Fatal(err)
	}
	h := newHook(q, url)
	h.cfg.Secrets = nil
	for _, key := range keys {
		h.cfg.Secrets = append(h.cfg.Secrets, []byte(key))
	}
	h.serve(t)
	h.delivered(t, 2)
	for _, want := range []string{"forget " + testToken(0) + " registered before 1750000000", "failed: größe BadCollapseId"} {
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("it printed %q, want %q", lines.Text(), want)
		}
	}
	if f := h.counters.Failed.Load(); f != 0 {
		t.Errorf("%d failures:\n%s", f, h.logs)
	}
}

// startReceiver runs a program until the test ends and returns what it prints after
// the line that tells its port.
func startReceiver(t *testing.T, secret, program string, args ...string) (lines *bufio.Scanner, port string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, program, args...)
	if program == "node" {
		cmd.Dir = "../../.tools/npm" // whose modules it finds
	}
	cmd.Env = append(os.Environ(), "FEEDBACK_SECRET="+secret, "PORT=0", "PYTHONIOENCODING=utf-8")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("%v (make test-tools installs %s, and deploy/npm.sh gets its packages)", err, program)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("%s said:\n%s", program, stderr.String())
		}
	})
	lines = bufio.NewScanner(out)
	lines.Scan()
	port, ok := strings.CutPrefix(lines.Text(), "listening on port ")
	if !ok {
		t.Fatalf("%s printed %q (it needs what make test-tools installs)", program, lines.Text())
	}
	return lines, port
}
