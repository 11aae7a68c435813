package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents are the texts for people, by their path in the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < 2 {
			t.Fatalf("%s: %d documents: %v", pattern, len(files), err)
		}
		for _, file := range files {
			all[strings.TrimPrefix(filepath.ToSlash(file), "../")] = read(t, file)
		}
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anchors are the places of a document that a link may name, as GitHub makes them.
func anchors(document string) map[string]bool {
	found := make(map[string]bool)
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(document, -1) {
		text := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(h[1]), "")
		found[strings.ReplaceAll(text, " ", "-")] = true
	}
	for _, a := range regexp.MustCompile(`<a id="([^"]+)">`).FindAllStringSubmatch(document, -1) {
		found[a[1]] = true
	}
	return found
}

// Every link of a document leads to a file of the repository, and to a place in it.
func TestLinksOfDocuments(t *testing.T) {
	t.Parallel()
	all, links := documents(t), 0
	for name, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, place, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
			}
			if _, err := os.Stat(filepath.Join("..", to)); err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
			} else if place != "" && !anchors(all[to])[place] {
				t.Errorf("%s: %s: there is no such place", name, m[1])
			}
		}
	}
	if links < 100 {
		t.Errorf("%d links", links)
	}
}

// What CONTRIBUTING.md and docs/architecture.md send a maintainer to is there: files,
// folders and tests.
func TestNamesForMaintainers(t *testing.T) {
	t.Parallel()
	tests := testNames(t)
	for name, text := range documents(t) {
		if name != "CONTRIBUTING.md" && name != "docs/architecture.md" {
			continue
		}
		named := 0
		for _, test := range regexp.MustCompile(`\b(?:Test|Fuzz|Example)[A-Z]\w*`).FindAllString(text, -1) {
			if named++; !tests[test] {
				t.Errorf("%s: there is no %s", name, test)
			}
		}
		for _, m := range regexp.MustCompile("[`[]([a-z][a-zA-Z0-9_.-]*(?:/[a-zA-Z0-9_.-]+)*)/?[]`]").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "/") && !regexp.MustCompile(`\.(go|md|yaml|json|sh|service)$`).MatchString(m[1]) {
				continue // a word, no path
			}
			if named++; !exists(m[1]) {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
		if named < 10 {
			t.Errorf("%s names %d files and tests", name, named)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join("..", path))
	return err == nil
}

// testNames are the functions that go test runs, in all packages.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w+)\(`).FindAllStringSubmatch(read(t, path), -1) {
			names[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The packages that docs/architecture.md lists are there, and none is missing that is
// not a small helper.
func TestPackagesAreListed(t *testing.T) {
	t.Parallel()
	text := read(t, "../docs/architecture.md")
	_, table, _ := strings.Cut(text, "\n## Packages\n")
	table, _, _ = strings.Cut(table, "\n## ")
	listed := make(map[string]bool)
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(table, -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			if name != "package" {
				listed[name] = true
			}
		}
	}
	for name := range listed {
		if !exists(name) {
			t.Errorf("docs/architecture.md: there is no %s", name)
		}
	}
	sources, err := filepath.Glob("../*/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(sources, more...) {
		name := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../")
		if !listed[name] && !regexp.MustCompile(`^(internal/|bench\b|test$)`).MatchString(name) {
			t.Errorf("docs/architecture.md does not list %s", name)
			listed[name] = true
		}
	}
}

// The glossary of docs/architecture.md stays one that can be learnt.
func TestGlossary(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(read(t, "../docs/architecture.md"), "\n## Words\n")
	table, _, _ = strings.Cut(table, "\n## ")
	if words := strings.Count(table, "\n| ") - 1; words < 10 || words > 40 {
		t.Errorf("%d entries, wanted at most 40", words)
	}
}
