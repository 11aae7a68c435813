package main

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// journalFile is where the daemon keeps the reasons of buried jobs.
func journalFile(at *site) string { return filepath.Join(at.path(stateDir), "buried.db") }

// maul mangles the daemon's journal, once in a run, while the daemon is down.
func (d *daemon) maul(rng *rand.Rand) error {
	if !d.corrupted.IsZero() || time.Now().Before(d.corruptFrom) {
		return nil
	}
	path := journalFile(d.at)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) < 2 {
		return nil // it never came to anything: another time
	}
	if err != nil {
		return err
	}
	how := pick(rng, "cut in half", "its head wiped", "noise in it")
	switch how {
	case "cut in half":
		data = data[:len(data)/2]
	case "its head wiped": // both meta pages
		clear(data[:min(len(data), 16<<10)])
	case "noise in it":
		for range 200 {
			data[rng.IntN(len(data))] ^= byte(1 + rng.IntN(255))
		}
	}
	d.corrupted = time.Now()
	d.at.note("journal mauled: %s", how)
	return os.WriteFile(path, data, 0o600)
}

// mauled makes sure that the journal was mangled: if no pause came in time,
// the daemon gets one. That is after the calm, which it must not help along.
func (d *daemon) mauled(ctx context.Context, rng *rand.Rand) error {
	if !d.corrupted.IsZero() {
		return nil
	}
	d.stop()
	if err := d.maul(rng); err != nil {
		return err
	}
	return d.start(ctx)
}
