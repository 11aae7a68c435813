package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The check for known flaws takes a copy of the database from a folder; one that
// is named and cannot be read fails, one on the network that cannot be reached is
// said.
func TestVulncheckFolder(t *testing.T) {
	t.Parallel()
	bin, db := t.TempDir(), t.TempDir()
	fake := "#!/bin/sh\necho \"$@\"\necho 'fetching vulnerabilities: no route'\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(folder string) (string, error) {
		cmd := exec.Command("sh", "../../deploy/vulncheck.sh")
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOVULNCHECK=govulncheck@v1", "VULNDB="+folder)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(""); err != nil || !strings.Contains(out, "NOT CHECKED") {
		t.Errorf("without a network: %v\n%s", err, out)
	}
	if out, err := run(db); err == nil || !strings.Contains(out, "run govulncheck@v1 -db file://"+db+" ./...\n") {
		t.Errorf("with a folder: %v\n%s", err, out)
	}
	if out, err := run(filepath.Join(db, "none")); err == nil {
		t.Errorf("a folder that is not there:\n%s", out)
	}
}

// go.mod names the release that the program is built with.
func TestToolchainLine(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`(?m)^toolchain go1\.\d+\.\d+$`)
	main, bench := line.Find(readFile(t, "../../go.mod")), line.Find(readFile(t, "../../bench/go.mod"))
	if main == nil || string(main) != string(bench) {
		t.Errorf("go.mod: %q, bench/go.mod: %q", main, bench)
	}
}
