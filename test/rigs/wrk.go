package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// wrkLoad is one load of wrk, the load generator of http
// (https://github.com/wg/wrk).
type wrkLoad struct {
	name    string
	kind    string // Content-Type
	conns   int
	perBody int // notifications in one body
}

// wrkReport is what a run of wrk has seen.
type wrkReport struct {
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
	Errors   int64   `json:"errors"` // answers other than 2xx, and connections that failed
	P50      float64 `json:"p50"`    // milliseconds
	P99      float64 `json:"p99"`

	cpu time.Duration // of wrk itself
}

func findWrk() (string, error) {
	bin, err := exec.LookPath("wrk")
	if err != nil {
		return "", errors.New("http needs wrk, a load generator: install the package wrk")
	}
	return bin, nil
}

// wrkOverrun is how long a run may take beside its time: wrk makes its requests
// before, and waits for answers after it.
const wrkOverrun = 30 * time.Second

// run has wrk send the bodies in turn, for a time.
func (l wrkLoad) run(ctx context.Context, wrk, url, key string, d time.Duration, bodies [][]byte) (r wrkReport, err error) {
	dir, err := os.MkdirTemp("", "propeller-wrk-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	script := filepath.Join(dir, "load.lua")
	if err := os.WriteFile(script, l.script(key, bodies), 0o600); err != nil { // it has the key
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, d+wrkOverrun)
	defer cancel()
	// wrk takes whole seconds only.
	seconds := max(1, int(d.Round(time.Second)/time.Second))
	cmd := exec.CommandContext(ctx, wrk, "-t1", "-c"+strconv.Itoa(l.conns), "-d"+strconv.Itoa(seconds)+"s", "-s", script, url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it: the context ends it
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("wrk: %w: %.200s", err, stderr.String())
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, r.parse(out)
}

// parse reads the line that the script writes.
func (r *wrkReport) parse(out []byte) error {
	_, line, ok := bytes.Cut(out, []byte(wrkMark))
	if !ok {
		return fmt.Errorf("wrk: no report in %.200q", out)
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if err := json.Unmarshal(line, r); err != nil {
		return fmt.Errorf("wrk: report %.200q: %w", line, err)
	}
	if r.Errors > 0 {
		return fmt.Errorf("wrk: %d of %d requests failed", r.Errors, r.Requests)
	}
	return nil
}

const wrkMark = "propeller-report "

// script is the program for wrk. It makes all requests before it begins.
func (l wrkLoad) script(key string, bodies [][]byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "local headers = {[\"Authorization\"] = \"Bearer %s\", [\"Content-Type\"] = %q}\n", key, l.kind)
	b.WriteString("local bodies = {\n")
	for _, body := range bodies {
		fmt.Fprintf(&b, "%s,\n", luaString(body))
	}
	b.WriteString(`}
local requests, n = {}, 0
function init()
  for i, body in ipairs(bodies) do
    requests[i] = wrk.format("POST", nil, headers, body)
  end
end
function request()
  n = n % #requests + 1
  return requests[n]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('` + wrkMark + `{"requests":%d,"seconds":%f,"errors":%d,"p50":%f,"p99":%f}\n', summary.requests,
    summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
`)
	return b.Bytes()
}

// luaString is a string of Lua without escapes, for text without "]==]".
func luaString(text []byte) string {
	return "[==[\n" + strings.TrimPrefix(string(text), "\n") + "]==]"
}
