package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"slices"
)

// exhume empties the queue while the daemon is down. It returns the buried jobs' bodies by
// tube and id, what `propeller jobs list` showed of them before, and the bodies of the
// waiting jobs.
func (r *run) exhume(ctx context.Context) (buried map[string]map[string]string, listed map[string]page, waiting []string, err error) {
	buried, listed = make(map[string]map[string]string), make(map[string]page)
	has, err := haveBuried(r.engine, tubes(allApps(r.at.apps)))
	if err != nil {
		return nil, nil, nil, err
	}
	for i, a := range allApps(r.at.apps) {
		if i >= len(apps()) && !has[a.tube] {
			continue // asking takes long
		}
		if listed[a.tube], err = listBuried(ctx, r.at, a.topic); err != nil {
			return nil, nil, nil, err
		}
	}
	for _, tube := range tubes(allApps(r.at.apps)) {
		if buried[tube], err = takeBuried(r.engine, tube); err != nil {
			return nil, nil, nil, err
		}
		jobs, err := takeRest(r.engine, tube)
		if err != nil {
			return nil, nil, nil, err
		}
		waiting = slices.AppendSeq(waiting, maps.Values(jobs))
	}
	return buried, listed, waiting, nil
}

// page is what `propeller jobs list` shows.
type page struct {
	reasons map[string]string // by the id that the producer got
	more    bool              // there are others
}

// listBuried asks for an app's buried jobs as an operator would.
func listBuried(ctx context.Context, at *site, topic string) (page, error) {
	cmd := exec.CommandContext(ctx, at.propeller, "jobs", "list", "--json", "--topic", topic, "-c", at.path(configName))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &said, dieWithParent()
	err := cmd.Run()
	at.note("propeller jobs list --topic %s: %d bytes, %v %s", topic, out.Len(), err, bytes.TrimSpace(said.Bytes()))
	if err != nil {
		return page{}, fmt.Errorf("propeller jobs list --topic %s: %w: %s", topic, err, bytes.TrimSpace(said.Bytes()))
	}
	var l struct {
		Jobs           []struct{ ID, Reason string }
		More, Complete bool
	}
	if err := json.Unmarshal(out.Bytes(), &l); err != nil {
		return page{}, fmt.Errorf("propeller jobs list --topic %s --json: %w", topic, err)
	}
	p := page{make(map[string]string), l.More || !l.Complete}
	for _, j := range l.Jobs {
		p.reasons[j.ID] = j.Reason
	}
	return p, nil
}
