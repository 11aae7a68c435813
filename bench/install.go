package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

//go:embed install.sh
var installScript string

// install makes sure that nghttpd and h2load are there.
func install(ctx context.Context, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "sh")
	cmd.Stdin = strings.NewReader(installScript)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("installing nghttpd and h2load: %w", err)
	}
	return nil
}
