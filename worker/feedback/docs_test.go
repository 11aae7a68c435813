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
	w := NewWebhook(WebhookConfig{URL: "http://user:password@127.0.0.1/", Secret: []byte(testSecret)})
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

// The receiver in the document takes what a webhook sends, and nothing else.
func TestDocumentedReceiver(t *testing.T) {
	t.Parallel()
	code := regexp.MustCompile("(?s)<!-- run: receiver -->\n```python\n(.*?)```").FindStringSubmatch(document(t))
	if code == nil {
		t.Fatal("docs/feedback.md has no receiver")
	}
	lines, port := startPython(t, code[1])
	url := "http://127.0.0.1:" + port + "/"
	resp, err := http.Post(url, "application/json", strings.NewReader(`{"records":[{"class":"token","token":"forged","at":""}]}`))
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

// startPython runs code until the test ends and returns what it prints after
// the line that tells its port.
func startPython(t *testing.T, code string) (lines *bufio.Scanner, port string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, "python3", "-c", code)
	cmd.Env = append(os.Environ(), "FEEDBACK_SECRET="+testSecret, "PORT=0", "PYTHONIOENCODING=utf-8")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("%v (make test-tools installs python3)", err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("python3 said:\n%s", stderr.String())
		}
	})
	lines = bufio.NewScanner(out)
	lines.Scan()
	port, ok := strings.CutPrefix(lines.Text(), "listening on port ")
	if !ok {
		t.Fatalf("python3 printed %q (it needs the whole standard library: make test-tools installs it)", lines.Text())
	}
	return lines, port
}
