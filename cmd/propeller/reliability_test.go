package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/reliability.md names is there.
func TestPromisesHaveTests(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := make(map[string]string)
	named := 0
	for _, m := range regexp.MustCompile("`([a-z/]+)` ((?:Test[A-Za-z0-9]+(?:, )?)+)").FindAllStringSubmatch(string(data), -1) {
		folder := m[1]
		if _, ok := sources[folder]; !ok {
			sources[folder] = testsOf(t, filepath.Join("../..", folder))
		}
		for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(m[2], -1) {
			named++
			if !strings.Contains(sources[folder], "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("docs/reliability.md: %s has no %s", folder, name)
			}
		}
	}
	if all := strings.Count(string(data), " Test"); named < all || named < 30 {
		t.Errorf("%d tests named, %d of them where they can be found", all, named)
	}
}

// testsOf is the text of a folder's tests.
func testsOf(t *testing.T, folder string) string {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d tests: %v", folder, len(files), err)
	}
	var b strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}
