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
	"syscall"
	"time"
)

// diskSize is the size of the embedded queue's disk. Jobs may fill three quarters of it.
const diskSize = 96 << 20

// disk is a small file system for the embedded queue alone, so that it can be filled. Only
// root can mount one.
type disk struct {
	at      *site
	dir     string
	mounted bool

	room sync.Mutex // held while it is full

	mu    sync.Mutex
	anews []time.Time // for each fill, when the daemon has restarted its server at the latest
}

// anewTime is how long the daemon may take to restart its server once the disk has room
// again: docs/queues.md says that it tries at least every 5 s. Jobs it held then come later.
const anewTime = 10 * time.Second

func (d *disk) upset() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.anews)
}

// newDisk makes the folder, and mounts a small file system on it if it may.
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

// waitForRoom waits until the disk is not full, and keeps it so until done is called: the
// daemon does not start on a full disk.
func (d *disk) waitForRoom() (done func()) {
	d.room.Lock()
	return d.room.Unlock
}

// diskFullTrouble begins the name of the trouble.
const diskFullTrouble = "the queue's disk is full for "

// fill fills the disk with a file, and removes it after a while.
func (d *disk) fill(ctx context.Context, t time.Duration) error {
	d.room.Lock()
	defer d.room.Unlock()
	defer d.at.trouble(diskFullTrouble + t.String())()
	defer func() {
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
		_, _ = f.Write(make([]byte, 4<<10)) // fills what the queue has freed since
	}
	return nil
}

// hand fills the disk now and then; nil if there is no file system to fill.
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

// close unmounts the file system, with everything on it.
func (d *disk) close() {
	if d.mounted {
		d.mounted = false
		if err := unmount(d.dir); err != nil {
			d.at.note("the queue's disk: %v", err)
		}
	}
}
