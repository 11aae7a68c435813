package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is the one tab of a headless Chromium of its own, with an empty profile.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string // URL of the daemon

	mu    sync.Mutex
	wrong []string // what the browser complained of and nobody has expected
}

// newTab starts a browser. At the test's end it must have complained of nothing,
// and no process of it may be left.
func newTab(t *testing.T, base string) *tab {
	t.Helper()
	dir := t.TempDir()
	o := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(dir), chromedp.Env("HOME="+dir, "TMPDIR="+dir), // nothing is written elsewhere
		chromedp.NoSandbox, // root, as in a container, cannot have it
		chromedp.Flag("disable-crash-reporter", true),
		chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"), // as an attacker's name server may have it
		chromedp.WindowSize(1280, 900),
	)
	// The test's own context ends before its cleanup.
	limited, end := context.WithTimeout(context.Background(), 2*patience)
	alloc, stop := chromedp.NewExecAllocator(limited, o...)
	b := &tab{t: t, base: base}
	ctx, closeTab := chromedp.NewContext(alloc, chromedp.WithListener(b.hear))
	b.ctx = ctx
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // what does not close is killed
		closeTab()
		stop()
		end()
		until(t, "every process of the browser has ended", func() bool { return len(using(t, dir)) == 0 })
		for _, w := range b.complaints() {
			t.Errorf("the browser says: %s", w)
		}
	})
	b.do("start", chromedp.Navigate("about:blank"))
	return b
}

// using lists the processes with a folder in their command line, as every
// process of a browser has its profile there.
func using(t *testing.T, dir string) (left []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(dir)) {
			left = append(left, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return left
}

// hear keeps what the browser and the page's scripts complain of.
func (b *tab) hear(event any) {
	var said string
	switch e := event.(type) {
	case *log.EventEntryAdded: // violations of the CSP, requests that fail
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			said = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		said = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			said += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, arg := range e.Args {
				said += " " + string(arg.Value) + arg.Description
			}
			said = "console:" + said
		}
	}
	// Plain HTTP to a name other than localhost cannot have that protection.
	if said != "" && !strings.Contains(said, "Cross-Origin-Opener-Policy header has been ignored") {
		b.mu.Lock()
		b.wrong = append(b.wrong, said)
		b.mu.Unlock()
	}
}

func (b *tab) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.wrong)
}

// expect waits for a complaint with text in it, and forgets all such.
func (b *tab) expect(text string) {
	b.t.Helper()
	has := func(said string) bool { return strings.Contains(said, text) }
	b.until("the browser complains of "+text, func() bool { return slices.ContainsFunc(b.complaints(), has) })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = slices.DeleteFunc(b.wrong, has)
}

func (b *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// open shows a path of the daemon.
func (b *tab) open(path string) {
	b.t.Helper()
	b.do("open "+path, chromedp.Navigate(b.base+path))
}

// click clicks what a CSS selector finds, once it can be seen.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.waitFor(selector)
	b.do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// fill replaces the text of a field by typing.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.waitFor(selector)
	empty := fmt.Sprintf(`document.querySelector(%q).value = ""`, selector)
	b.do("fill "+selector, chromedp.Evaluate[chromedp.Void](empty), chromedp.SendKeys(chromedp.CSS(selector), text))
}

// choose chooses an option of a list. It is a script that does so: a node's id, by which chromedp
// acts on it, ends when the browser reports that the page has loaded.
func (b *tab) choose(selector, option string) {
	b.t.Helper()
	b.waitFor(selector)
	script := fmt.Sprintf(`{ const list = document.querySelector(%q); list.value = %q; list.dispatchEvent(new Event("change", {bubbles: true})) }`, selector, option)
	b.do("choose "+option, chromedp.Evaluate[chromedp.Void](script))
}

// keys presses keys, wherever the focus is.
func (b *tab) keys(keys string) {
	b.t.Helper()
	b.do("keys", chromedp.KeyEvent(keys))
}

// eval is a JavaScript expression's value in the page; ok is false while there is
// no page, or the expression throws, as between two pages.
func eval[T any](b *tab, expression string) (value T, ok bool) {
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	return value, err == nil
}

// text is what an element shows, "" if it is not there.
func (b *tab) text(selector string) string {
	text, _ := eval[string](b, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
	return strings.TrimSpace(text)
}

// count counts the elements that can be seen.
func (b *tab) count(selector string) int {
	n, ok := eval[int](b, fmt.Sprintf("[...document.querySelectorAll(%q)].filter(e => e.checkVisibility()).length", selector))
	if !ok {
		return -1
	}
	return n
}

func (b *tab) path() string {
	path, _ := eval[string](b, "location.pathname")
	return path
}

// waitFor waits until an element can be seen.
func (b *tab) waitFor(selector string) {
	b.t.Helper()
	b.until(selector+" is there", func() bool { return b.count(selector) > 0 })
}

// says waits until an element shows a text.
func (b *tab) says(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s says %q", selector, text), func() bool { return strings.Contains(b.text(selector), text) })
}

// until waits for a condition, and tells what the page showed if it never comes.
func (b *tab) until(what string, cond func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || b.ctx.Err() != nil {
			b.t.Fatalf("still not: %s; %s shows\n%s", what, b.path(), b.text("body"))
		}
	}
}

// The tests of the page would see a script or style that its CSP forbids, an
// exception, and a request that fails.
func TestBrowserComplains(t *testing.T) {
	t.Parallel()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'")
			fmt.Fprint(w, `<link rel="icon" href="data:,"><p id="said" style="color: red">before</p><script>document.title = "inline"</script><script src="/own.js"></script>`)
		case "/own.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, `document.querySelector("#said").textContent = "after"; console.error("said by a script"); throw new Error("thrown by a script")`)
		case "/favicon.ico":
			w.WriteHeader(http.StatusNoContent)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(page.Close) // after the browser: it asks for an icon when it likes
	b := newTab(t, page.URL)
	b.open("/")
	b.says("#said", "after")
	for _, text := range []string{"script-src 'self'", "style-src 'self'", "img-src", "said by a script", "thrown by a script"} {
		b.expect(text)
	}
	if title, _ := eval[string](b, "document.title"); title != "" {
		t.Errorf("the inline script has run: %q", title)
	}
	b.open("/none")
	b.expect("404")
}
