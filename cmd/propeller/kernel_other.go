//go:build !linux

package main

import (
	"context"
	"log/slog"
	"time"
)

// Service managers that want it are Linux' own.
func monotonic() (time.Duration, bool) { return 0, false }

// Containers are Linux' own.
func inheritsOrphans() bool { return false }

func reap(context.Context, *slog.Logger) {}
