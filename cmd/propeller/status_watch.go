package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"propeller/httpapi"
)

// watchEvery is the pause between two looks.
const watchEvery = 2 * time.Second

// Control sequences (ECMA-48; ?1049 and ?25 are xterm's): the other screen with
// the cursor hidden, and back; to the top left; clear the rest of the line, and
// of the screen.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watchStatus shows what ask finds, again and again until ctx ends. A daemon
// that has gone is asked on until it is back; one that refuses the first
// question is an error.
func watchStatus(ctx context.Context, ask func(context.Context) (httpapi.Apps, error), v *statusView) (err error) {
	if v.screen && !v.json {
		if err := v.write(enterScreen); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.write(leaveScreen)) }()
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var gone time.Time // since when the daemon does not answer
	for first := true; ; first = false {
		apps, err := ask(ctx)
		now := time.Now()
		switch _, answered := errors.AsType[*httpapi.Problem](err); {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			gone = time.Time{}
		case first && answered:
			return statusError{exitUnknown, err}
		case gone.IsZero():
			gone = now
		}
		if err := v.frame(apps, now, gone, err); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// frame shows one look of many: apps, or err of a daemon that does not answer
// since gone, above what was seen last.
func (v *statusView) frame(apps httpapi.Apps, now, gone time.Time, err error) error {
	if v.json {
		return v.jsonLine(apps, err)
	}
	head := "propeller " + now.Format(time.TimeOnly) + " "
	rows, _ := v.size()
	var lines []string
	if err == nil {
		lines = append(append([]string{head + summary(apps.Apps)}, v.refused(apps.RefusedReload, now)...), "")
		limit := 0
		if rows > 0 {
			limit = max(1, rows-len(lines))
		}
		v.last = v.table(apps.Apps, now, limit)
	} else {
		for _, line := range wrap(fmt.Sprintf("%sthe daemon has not answered for %s: %s", head, ago(now.Sub(gone)), cell(err.Error())), v.width()) {
			lines = append(lines, v.paint(red, line))
		}
		if v.last != nil {
			lines = append(lines, "", "Before that:")
		}
	}
	lines = append(lines, v.last...)
	if !v.screen {
		return v.lines(append(lines, ""))
	}
	if rows > 0 && len(lines) > rows {
		lines = lines[:rows] // one more would scroll the first away
	}
	// In one go, so that no half of it is seen.
	return v.write(cursorHome + strings.Join(lines, clearLine+"\r\n") + clearLine + clearBelow)
}

func (v *statusView) jsonLine(apps httpapi.Apps, err error) error {
	e := json.NewEncoder(v.out)
	if err != nil {
		return e.Encode(map[string]string{"error": err.Error()})
	}
	return e.Encode(apps)
}
