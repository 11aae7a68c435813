package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
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

// The clients in README.md that need no package put a job that arrives.
func TestReadmeClients(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	startDaemon(t, s.dir)
	host, port, _ := strings.Cut(s.bs.Addr(), ":")
	for i, client := range []struct{ name, interpreter, flag string }{{"shell", "sh", "-c"}, {"python", "python3", "-c"}} {
		block := regexp.MustCompile("(?s)<!-- run: " + client.name + " -->\n```[a-z]+\n(.*?)```").FindStringSubmatch(readme(t))
		if block == nil {
			t.Fatalf("README.md has no client for %s", client.name)
		}
		code := strings.NewReplacer("127.0.0.1 11300", host+" "+port, `"127.0.0.1", 11300`, `"`+host+`", `+port).Replace(block[1])
		if strings.Contains(code, "11300") {
			t.Fatalf("%s: the port stands in a form this test does not know", client.name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, client.interpreter, client.flag, code).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "INSERTED") {
			t.Fatalf("%s: %v\n%s(make test-tools installs what this needs)", client.name, err, out)
		}
		until(t, client.name+"'s push arrives", func() bool { return s.apns.Count() == int64(i+1) })
	}
}
