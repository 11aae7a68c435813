package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// While the disk is full nothing can be written to it, and the daemon waits to be started;
// then there is room again.
func TestTheDiskIsFullForAWhile(t *testing.T) {
	t.Parallel()
	at := &site{dir: t.TempDir()}
	var err error
	if at.history, err = os.Create(at.path("history.log")); err != nil {
		t.Fatal(err)
	}
	defer at.history.Close()
	d, err := newDisk(at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if !d.mounted {
		if h := d.hand(newRNG(1, 1)); h != nil {
			t.Error("a hand on a disk that cannot be filled")
		}
		t.Skip("no file system can be mounted here")
	}
	file := filepath.Join(d.dir, "file")
	filled := make(chan error, 1)
	go func() { filled <- d.fill(t.Context(), time.Second) }()
	saw := false
	for err = nil; len(filled) == 0; {
		if err := os.WriteFile(file, make([]byte, 64<<10), 0o600); errors.Is(err, syscall.ENOSPC) {
			saw = true
			if d.room.TryLock() {
				if at.diskFull(time.Now()) {
					t.Error("the daemon would be started on a full disk")
				}
				d.room.Unlock()
			}
		}
		os.Remove(file)
	}
	if err := <-filled; err != nil || !saw {
		t.Errorf("fill: %v; seen full: %v", err, saw)
	}
	if err := os.WriteFile(file, make([]byte, 64<<10), 0o600); err != nil || at.diskFull(time.Now()) {
		t.Errorf("afterwards: %v", err)
	}
	if late := d.upset(); len(late) != 1 || time.Until(late[0]) < anewTime/2 {
		t.Errorf("what was held comes later until %v", late)
	}
	at.disk = d
	// A daemon that was told to stop while the disk was full could not settle, though it had
	// room again by the time it ended.
	p := &daemon{at: at, lives: []life{{began: second(0)}}}
	if p.over(false, time.Now()); p.lives[0].killed {
		t.Error("a daemon that ends with room on its disk counts as killed")
	}
	full := at.troubles[len(at.troubles)-1]
	if p.over(false, full.from); !p.lives[0].killed {
		t.Error("a daemon that ends on a full disk counts as one that could settle")
	}
}
