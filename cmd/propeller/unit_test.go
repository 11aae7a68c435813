package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"propeller/config"
)

// The systemd unit's command line is one that the program knows, and systemd
// does not kill before the daemon would end itself.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../deploy/propeller.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && key[0] != '#' {
			unit[key] = value
		}
	}
	for key, want := range map[string]string{"Type": "notify", "Restart": "on-failure", "RestartPreventExitStatus": strconv.Itoa(exitUsage)} {
		if unit[key] != want {
			t.Errorf("%s=%s, want %s", key, unit[key], want)
		}
	}
	for _, line := range []string{
		"NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateUsers=yes", "LimitCORE=0",
		"SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources",
	} {
		if !strings.Contains(string(data), "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
	if _, err := strconv.Atoi(unit["WatchdogSec"]); err != nil {
		t.Errorf("WatchdogSec: %v", err)
	}
	stop, err := strconv.Atoi(unit["TimeoutStopSec"])
	if least := config.Default().ShutdownTimeout + overrun; err != nil || time.Duration(stop)*time.Second <= least {
		t.Errorf("TimeoutStopSec=%s, must be above %v", unit["TimeoutStopSec"], least)
	}
	args := strings.Fields(unit["ExecStart"])
	if len(args) < 2 || !strings.HasSuffix(args[0], "/propeller") {
		t.Fatalf("ExecStart=%s", unit["ExecStart"])
	}
	cmd, rest, err := newRoot().Find(args[1:])
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err != nil || cmd.Name() != "run" || cmd.Flags().NArg() > 0 {
		t.Errorf("ExecStart=%s: %v", unit["ExecStart"], err)
	}
}
