package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"propeller/config"
)

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCommandsAreDocumented(t *testing.T) {
	t.Parallel()
	text := readme(t)
	for _, c := range newRoot().Commands() {
		if c.Name() != "help" && !strings.Contains(text, "`propeller "+c.Name()) {
			t.Errorf("README.md lacks the command %s", c.Name())
		}
	}
}

// The configurations in README.md are such that only their certificates are
// missing.
func TestReadmeConfigurations(t *testing.T) {
	t.Parallel()
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	if len(blocks) < 2 {
		t.Fatalf("%d configurations", len(blocks))
	}
	for _, b := range blocks {
		_, err := config.Parse("README.md", []byte(b[1]), config.Options{
			Dir: t.TempDir(), Getenv: func(string) (string, bool) { return "secret", true },
		})
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.Contains(line, "no such file") {
				t.Error(line)
			}
		}
	}
}
