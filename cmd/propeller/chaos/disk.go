package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// diskSize is that of the disk that the embedded queue has for itself. Its server
// takes three quarters of it.
const diskSize = 96 << 20

// disk is a small file system of the embedded queue's own, which can be filled
// up. Only root can have one.
type disk struct {
	at      *site
	dir     string
	mounted bool

	room sync.Mutex // held while it is full
	full atomic.Bool

	mu    sync.Mutex
	anews []time.Time // by when the daemon had started its server anew, each time
}

// anewTime is how long after the disk has room again the daemon may start its
// server anew: docs/queues.md, it tries at most 5 s after the last time. What it
// held then comes later.
const anewTime = 10 * time.Second

func (d *disk) upset() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.anews)
}

// newDisk makes the folder, and mounts something small on it if that is allowed.
func newDisk(at *site) (*disk, error) {
	d := &disk{at: at, dir: at.path("disk")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	err := mountSmall(d.dir, diskSize)
	if d.mounted = err == nil; !d.mounted {
		at.note("the queue's disk is never full: no file system can be mounted: %v", err)
	}
	return d, nil
}

// waitForRoom waits until the disk is not full, and keeps it so until done is
// called: the daemon does not start on a full one.
func (d *disk) waitForRoom() (done func()) {
	d.room.Lock()
	return d.room.Unlock
}

// fill writes a file until nothing more fits, and removes it after a while.
func (d *disk) fill(ctx context.Context, t time.Duration) error {
	d.room.Lock()
	defer d.room.Unlock()
	defer d.at.trouble("the queue's disk is full for " + t.String())()
	d.full.Store(true)
	defer func() {
		d.full.Store(false)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.anews = append(d.anews, time.Now().Add(anewTime))
	}()
	path := filepath.Join(d.dir, "fill")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	for chunk := make([]byte, 256<<10); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the queue's disk: %w", err)
	}
	for end := time.Now().Add(t); ctx.Err() == nil && time.Now().Before(end); sleep(ctx, 20*time.Millisecond) {
		_, _ = f.Write(make([]byte, 4<<10)) // what the queue has given back since
	}
	return nil
}

// hand fills the disk now and then; nil if it cannot.
func (d *disk) hand(rng *rand.Rand) *hand {
	if !d.mounted {
		return nil
	}
	h := &hand{rng: rng, mean: 10 * time.Second}
	h.acts = []act{{name: "the queue's disk full", weight: 1, do: func(_, faults context.Context) error {
		return d.fill(faults, time.Second+h.upTo(8*time.Second))
	}}}
	return h
}

// close gives the file system back, with all that was on it.
func (d *disk) close() {
	if d.mounted {
		d.mounted = false
		if err := unmount(d.dir); err != nil {
			d.at.note("the queue's disk: %v", err)
		}
	}
}
