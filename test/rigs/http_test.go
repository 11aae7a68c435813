package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Each body of a load is taken whole, so that what is measured is no errors.
func TestHTTPBodies(t *testing.T) {
	t.Parallel()
	set, q := testSettings(t)
	r, err := set.newHTTPRig(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	put := 0
	for _, l := range httpLoads {
		bodies := r.bodies(l)
		if len(bodies)*l.perBody != httpBodies {
			t.Errorf("%s: %d bodies", l.name, len(bodies))
		}
		for _, body := range bodies[:2] {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.addr+"/v1/notifications", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+r.key)
			req.Header.Set("Content-Type", l.kind)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for in := json.NewDecoder(resp.Body); in.More(); n++ {
				var one struct{ ID string }
				if err := in.Decode(&one); err != nil || one.ID == "" {
					t.Fatalf("%s: %v, %+v", l.name, err, one)
				}
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted || n != l.perBody {
				t.Errorf("%s: %s, %d answers", l.name, resp.Status, n)
			}
			put += n
		}
	}
	if n, err := r.stored(t.Context()); err != nil || n != int64(put) {
		t.Errorf("%d jobs of %d in the queue, %v", n, put, err)
	}
}

// A program in wrk's place is called as wrk is, and its report is read.
func TestWrkLoad(t *testing.T) {
	t.Parallel()
	bodies := [][]byte{[]byte(`{"a":"\\"}`), []byte("b\n")}
	for report, fault := range map[string]string{
		wrkMark + `{"requests":7,"seconds":2.5,"errors":0,"p50":1.5,"p99":3}`: "",
		wrkMark + `{"requests":7,"seconds":2.5,"errors":1,"p50":1.5,"p99":3}`: "1 of 7 requests failed",
		wrkMark + `{"requests":`: "wrk: report",
		`Requests/sec: 9`:        "wrk: no report",
	} {
		l := wrkLoad{name: "x", kind: "text/x", conns: 3, perBody: 1}
		r, err := l.run(t.Context(), "testdata/wrk", report, "the-key", 1600*time.Millisecond, bodies)
		switch {
		case fault != "":
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %v, want %s", report, err, fault)
			}
		case err != nil || r.Requests != 7 || r.Seconds != 2.5 || r.P50 != 1.5 || r.P99 != 3:
			t.Errorf("%+v, %v", r, err)
		}
	}
	if _, err := (wrkLoad{conns: 4}).run(t.Context(), "testdata/wrk", "x", "the-key", time.Second, bodies); err == nil || !strings.Contains(err.Error(), "called with -t1 -c4 -d1s") {
		t.Errorf("a program that fails: %v", err)
	}
	script := string(wrkLoad{kind: "text/x"}.script("the-key", bodies))
	for _, want := range []string{"Bearer the-key", `"text/x"`, "[==[\n{\"a\":\"\\\\\"}]==],\n[==[\nb\n]==],\n"} {
		if !strings.Contains(script, want) {
			t.Errorf("no %q in\n%s", want, script)
		}
	}
}
