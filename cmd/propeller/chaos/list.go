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

// exhume takes all out of the queue, with the daemon down: what is buried, bodies
// by tube and id, and what `propeller jobs list` said of each; and the bodies of
// what waits.
func (r *run) exhume(ctx context.Context) (buried, listed map[string]map[string]string, waiting []string, err error) {
	buried, listed = make(map[string]map[string]string), make(map[string]map[string]string)
	for _, a := range apps() {
		buried[a.tube], listed[a.tube] = make(map[string]string), make(map[string]string)
		if err := r.exhumeListed(ctx, a, buried[a.tube], listed[a.tube]); err != nil {
			return nil, nil, nil, err
		}
	}
	for _, tube := range tubes() {
		rest, err := takeBuried(r.engine, tube)
		if err != nil {
			return nil, nil, nil, err
		}
		if buried[tube] == nil {
			buried[tube] = rest
		}
		maps.Copy(buried[tube], rest)
		jobs, err := takeRest(r.engine, tube)
		if err != nil {
			return nil, nil, nil, err
		}
		waiting = slices.AppendSeq(waiting, maps.Values(jobs))
	}
	return buried, listed, waiting, nil
}

// exhumeListed takes the jobs of an app that are listed, page by page.
func (r *run) exhumeListed(ctx context.Context, a app, buried, listed map[string]string) error {
	for {
		page, err := listBuried(ctx, r.at, a.topic)
		if err != nil {
			return err
		}
		c, err := r.engine.dial()
		if err != nil {
			return err
		}
		for _, j := range page.Jobs {
			body, err := c.fetch(j.ID)
			if err != nil {
				c.close()
				return fmt.Errorf("job %s of %s is listed as buried: %w", j.ID, a.tube, err)
			}
			buried[j.ID], listed[j.ID] = string(body), j.Reason
		}
		c.close()
		if !page.More || len(page.Jobs) == 0 {
			return nil
		}
	}
}

// buriedPage is what the auditor needs of `propeller jobs list --json`.
type buriedPage struct {
	Jobs []struct{ ID, Reason string }
	More bool
}

// listBuried asks for an app's buried jobs as an operator would.
func listBuried(ctx context.Context, at *site, topic string) (*buriedPage, error) {
	cmd := exec.CommandContext(ctx, at.propeller, "jobs", "list", "--json", "--topic", topic, "-c", at.path(configName))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &said, dieWithParent()
	err := cmd.Run()
	at.note("propeller jobs list --topic %s: %d bytes, %v %s", topic, out.Len(), err, bytes.TrimSpace(said.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("propeller jobs list --topic %s: %w: %s", topic, err, bytes.TrimSpace(said.Bytes()))
	}
	page := new(buriedPage)
	if err := json.Unmarshal(out.Bytes(), page); err != nil {
		return nil, fmt.Errorf("propeller jobs list --topic %s --json: %w", topic, err)
	}
	return page, nil
}
