package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport has, for each part of the program, which other parts it may import:
// docs/architecture.md.
var mayImport = map[string]string{
	"internal":       "internal",
	"apnsconn":       "internal",
	"queue":          "internal",
	"config":         "internal apnsconn queue",
	"worker":         "internal apnsconn queue worker/job",
	"worker/job":     "internal apnsconn",
	"supervisor":     "internal apnsconn queue config worker worker/job",
	"httpapi":        "internal apnsconn queue worker worker/job supervisor httpapi/page",
	"httpapi/page":   "internal apnsconn",
	"internal/bench": "internal apnsconn queue config worker worker/job supervisor",
	"internal/move":  "internal queue",
	"cmd":            "internal apnsconn queue config worker worker/job supervisor httpapi internal/bench internal/move",
	"test":           "internal apnsconn queue config worker worker/job supervisor httpapi internal/bench",
}

// part is the part of the program that a package belongs to.
func part(name string) string {
	switch name {
	case "internal/bench", "internal/move", "worker/job", "httpapi/page":
		return name
	}
	name, _, _ = strings.Cut(name, "/")
	return name
}

// Imports run one way, and nothing imports what is in test/. Tests may import as they like.
func TestImports(t *testing.T) {
	t.Parallel()
	checked := make(map[string]int)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, "../"))
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "bench" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir // a module of its own, or tools
		case filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from := part(filepath.ToSlash(filepath.Dir(name)))
		allowed, ok := mayImport[from]
		if !ok {
			t.Errorf("%s: %q is no part that docs/architecture.md knows", name, from)
		}
		checked[from]++
		for _, spec := range file.Imports {
			imported, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "propeller/")
			if to := part(imported); ours && to != from && !slices.Contains(strings.Fields(allowed), to) {
				t.Errorf("%s must not import %s", name, imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range mayImport {
		if checked[name] == 0 {
			t.Errorf("there is no %s", name)
		}
	}
}
