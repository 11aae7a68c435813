// Package page draws what people see in a browser: a template for each page, and the
// style and scripts that they load. httpapi answers the requests; its types are what the
// templates take.
//
// Parts of a page that change have an id and a template of that name, which draws them in
// the page and again, alone, for its stream of events: assets/swap.js puts the new part in
// the place of the old one.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"sync"
)

// View is what every page shows.
type View struct {
	Base    string // in front of every path
	Title   string
	Name    string // of the visitor's key; "" for nobody
	Signed  bool   // in, so that they may sign out
	MaySend bool
	MayAct  bool
	Events  string // the address of the page's live data; "" for none
	Refused any    // the last reload, if it was refused: its At and Fault
	Main    any    // what the page's own template takes
}

// Assets is where the style and scripts are.
func (v View) Assets() string { return v.Base + "/assets/" + assetVersion() }

// Render returns the page that the named template renders.
func Render(name string, v View) ([]byte, error) { return Fragment(name, "layout", v) }

// Fragment returns a part of a page, as the template named part of that page renders it.
func Fragment(page, part string, data any) ([]byte, error) {
	var out bytes.Buffer
	err := templates()[page].ExecuteTemplate(&out, part, data)
	return out.Bytes(), err
}

//go:embed *.html assets
var files embed.FS

// templates are the pages by name, each within the layout.
var templates = sync.OnceValue(func() map[string]*template.Template {
	out := make(map[string]*template.Template)
	for _, name := range []string{"overview", "app", "buried", "job", "send", "login", "fault", "bounce"} {
		t := template.New(name).Funcs(funcs)
		out[name] = template.Must(t.ParseFS(files, "layout.html", name+".html"))
	}
	return out
})

// policy lets a browser load nothing but what is embedded here, show it in no frame, and
// send forms nowhere else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// SetHeaders sets what every answer to a browser has.
func SetHeaders(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	// no-referrer would have browsers send "Origin: null" with the page's own forms
	// (Fetch Standard, "append a request Origin header").
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// assetVersion changes with the assets, which browsers may keep for ever.
var assetVersion = sync.OnceValue(func() string {
	h := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(name)
		h.Write(text)
		return err
	})
	if err != nil {
		panic(err) // of files inside the program: cannot be
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
})

var assetTypes = map[string]string{ // never written to
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// WriteAsset answers a request for an asset; ok is false if no asset has that name.
func WriteAsset(w http.ResponseWriter, version, name string) (ok bool) {
	kind := assetTypes[path.Ext(name)]
	text, err := files.ReadFile("assets/" + name)
	if kind == "" || err != nil {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	if version == assetVersion() {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(text) // a client that has left needs no answer
	return true
}
