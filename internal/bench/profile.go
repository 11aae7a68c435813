package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// startProfile begins the profiles that the plan wants, if any.
func (p *benchPlan) startProfile() (stop func() error, err error) {
	if p.profile == "" {
		return p.writeHeap, nil
	}
	file, err := os.Create(p.profile)
	if err != nil {
		return nil, fmt.Errorf("--cpuprofile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(fmt.Errorf("--cpuprofile: %w", err), file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(file.Close(), p.writeHeap())
	}, nil
}

// writeHeap writes what is on the heap now, and what has been allocated.
func (p *benchPlan) writeHeap() error {
	if p.heap == "" {
		return nil
	}
	file, err := os.Create(p.heap)
	if err != nil {
		return fmt.Errorf("--memprofile: %w", err)
	}
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}
