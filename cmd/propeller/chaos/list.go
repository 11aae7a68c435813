package main

import "context"

// listBuried asks `propeller jobs list` for the buried jobs of every tube, with
// the daemon down: reasons by tube and id.
func listBuried(ctx context.Context, at *site) (map[string]map[string]string, error) {
	return nil, nil
}
