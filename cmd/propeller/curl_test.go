package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
)

// Every curl in docs does what it is shown for, and answers what is shown below it;
// and each request in the table of the HTTP API has one.
func TestCurls(t *testing.T) {
	s := &webSite{site: newSite(t, apnstest.Options{Script: apnstest.TokenCodes})}
	s.stateful()
	s.write("propeller.yaml", s.read("propeller.yaml")+"http: {listen: '127.0.0.1:0', auth_token: admin-0123, pprof: true}\n")
	s.start()
	push := func(to string) string { return fmt.Sprintf(`{"topic": %q, "token": %q, "title": "Hi"}`, topic, to) }
	s.write("pushes.ndjson", push(token(1))+"\n"+push(token(2))+"\n")
	put := func(to string) string {
		t.Helper()
		status, text := s.ask("admin-0123", "POST", "/v1/notifications", push(to))
		var r struct{ ID string }
		if err := json.Unmarshal([]byte(text), &r); err != nil || status != 202 {
			t.Fatalf("%d %s: %v", status, text, err)
		}
		return r.ID
	}
	one, two, three := put(failing(1, 413)), put(failing(2, 413)), put(failing(3, 413))
	until(t, "three are buried", func() bool { return s.buried() == 3 })
	delivered := put(token(3))
	until(t, "a push is delivered", func() bool {
		_, text := s.ask("admin-0123", "GET", "/v1/notifications/"+delivered, "")
		return strings.Contains(text, `"state":"delivered`)
	})
	// What stands in docs for what is this site's.
	own := strings.NewReplacer(
		"http://127.0.0.1:8080", s.url, "$TOKEN", "admin-0123", "00fc13ad…", token(4), "BadTopic", "PayloadTooLarge",
		"notifications/4711", "notifications/"+delivered, "4711", one, "4712", two, "4713", three,
		"pushes.ndjson", filepath.Join(s.dir, "pushes.ndjson"), "heap.pprof", filepath.Join(s.dir, "heap.pprof"),
		"/var/lib/propeller/propeller.sock", filepath.Join(s.dir, "state", "propeller.sock"),
	)
	api, missing := requestTable(t)
	for _, example := range curlsOf(t, "http-api.md", "operations.md") {
		c, err := parseCurl(own.Replace(example.command))
		if err != nil {
			t.Errorf("%s: %v", example.command, err)
			continue
		}
		if strings.Contains(example.command, "/buried/delete") { // the kicked job is refused again
			until(t, "three are buried again", func() bool {
				_, text := s.ask("admin-0123", "GET", "/v1/apps/"+topic+"/buried", "")
				return strings.Count(text, `"reason"`) == 3
			})
		}
		_, pattern := api.Handler(c.request)
		delete(missing, pattern)
		status, text := c.do(t)
		if status < 200 || status > 299 {
			t.Errorf("%s: %d %s", example.command, status, text)
		}
		if example.answer == "" {
			continue
		}
		if want, got := shapeOf(t, example.answer), shapeOf(t, text); want != got {
			t.Errorf("%s answers\n%s\nlike %s, docs have\n%s\nlike %s", example.command, text, got, example.answer, want)
		}
	}
	for pattern := range missing {
		t.Errorf("docs/http-api.md has no curl for %s", pattern)
	}
}

// requestTable are the requests of the table in docs/http-api.md.
func requestTable(t *testing.T) (mux *http.ServeMux, patterns map[string]bool) {
	t.Helper()
	mux, patterns = http.NewServeMux(), make(map[string]bool)
	_, section, _ := strings.Cut(document(t, "http-api.md"), "\n## Requests\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\|").FindAllStringSubmatch(section, -1) {
		mux.Handle(row[1], http.NotFoundHandler())
		patterns[row[1]] = true
	}
	if len(patterns) < 10 {
		t.Fatalf("the table has %d requests", len(patterns))
	}
	return mux, patterns
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// curlExample is a curl in docs, and its answer where that is shown.
type curlExample struct{ command, answer string }

// curlsOf are the examples of documents: indented blocks, in which a command goes on
// as long as a quote is open or a line ends in a backslash.
func curlsOf(t *testing.T, documents ...string) (all []curlExample) {
	t.Helper()
	for _, name := range documents {
		open := false
		for line := range strings.SplitSeq(document(t, name), "\n") {
			text, indented := strings.CutPrefix(line, "    ")
			last := len(all) - 1
			switch {
			case open:
				all[last].command += "\n" + text
			case !indented:
				continue
			case strings.HasPrefix(text, "curl "):
				all = append(all, curlExample{command: text})
				last++
			case last >= 0 && (strings.HasPrefix(text, "{") || all[last].answer != "" && strings.HasPrefix(text, " ")):
				all[last].answer += text
				continue
			default:
				continue
			}
			open = strings.HasSuffix(text, `\`) || strings.Count(all[last].command, "'")%2 == 1
		}
	}
	return all
}

// curl is a curl that is understood.
type curl struct {
	request *http.Request
	socket  string // "" over TCP
}

// shellWords are the words of a command line as a shell has them that knows quotes, and
// lines that go on after a backslash.
func shellWords(command string) (words []string) {
	var word strings.Builder
	quote, begun := rune(0), false
	for _, r := range strings.ReplaceAll(command, "\\\n", " ") + "\n" {
		switch {
		case r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r != ' ' && r != '\n':
			word.WriteRune(r)
			begun = true
		case begun:
			words, begun = append(words, word.String()), false
			word.Reset()
		}
	}
	return words
}

// parseCurl understands what docs use of curl, without a shell.
func parseCurl(command string) (c curl, err error) {
	var method, target string
	var data []string
	body := io.Reader(http.NoBody)
	header := make(http.Header)
	args := shellWords(command)
	for i := 1; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			target = args[i]
			continue
		}
		flag := args[i]
		if i++; i == len(args) {
			return c, fmt.Errorf("%s has no value", flag)
		}
		switch value := args[i]; flag {
		case "-H":
			name, text, _ := strings.Cut(value, ": ")
			header.Set(name, text)
		case "-d":
			data = append(data, value)
		case "-T":
			text, err := os.ReadFile(value)
			if err != nil {
				return c, err
			}
			body = strings.NewReader(string(text))
		case "-X":
			method = value
		case "-o": // where the answer goes
		case "--unix-socket":
			c.socket = value
		default:
			return c, fmt.Errorf("%s: this test does not know it", flag)
		}
	}
	if data != nil {
		body = strings.NewReader(strings.Join(data, "&"))
		method = "POST"
		if header.Get("Content-Type") == "" {
			header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
		}
	}
	if c.request, err = http.NewRequest(method, target, body); err == nil {
		c.request.Header = header
	}
	return c, err
}

func (c curl) do(t *testing.T) (status int, text string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if c.socket != "" {
			network, addr = "unix", c.socket
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Do(c.request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// shapeOf is which keys a JSON text has, without their values.
func shapeOf(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return shape(v)
}

func shape(v any) string {
	var parts []string
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			parts = append(parts, key+shape(value))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, " ") + "}"
	case []any:
		for _, value := range v {
			parts = append(parts, shape(value))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return ""
}
