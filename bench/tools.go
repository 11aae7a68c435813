package main

import (
	"fmt"
	"os/exec"
)

// checkTools makes sure that nghttpd and h2load are there.
func checkTools() error {
	for _, program := range []string{"nghttpd", "h2load"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: run \"make test-tools\" (or make bench) in the folder above, which installs it: %w", program, err)
		}
	}
	return nil
}
