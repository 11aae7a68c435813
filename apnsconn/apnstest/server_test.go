//lint:file-ignore SA1019 x/net's own client is driven on purpose: it is another's reading of the protocol.

package apnstest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// clients are the HTTP/2 clients that a Go program would use.
func clients(t *testing.T, s *apnstest.Server) map[string]http.RoundTripper {
	t.Helper()
	cfg := &tls.Config{RootCAs: s.CertPool(), Certificates: []tls.Certificate{s.ClientCert(topic)}}
	std := &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: true}
	x := &http2.Transport{TLSClientConfig: cfg.Clone()}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	nc, err := tls.Dial("tcp", s.Addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	single, err := x.NewClientConn(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		std.CloseIdleConnections()
		x.CloseIdleConnections()
		single.Close()
	})
	return map[string]http.RoundTripper{"net/http": std, "http2.Transport": x, "http2.ClientConn": single}
}

// roundTrip sends one push. It returns the answer's status and body.
func roundTrip(ctx context.Context, rt http.RoundTripper, s *apnstest.Server, token string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/3/device/"+token, strings.NewReader(`{"aps":{"alert":"hello"}}`))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("apns-topic", topic)
	req.Header.Set("apns-push-type", "alert")
	req.Header.Set("apns-priority", "10")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// TestGoClients: clients written by others understand the server, many
// streams at once, and obey it.
func TestGoClients(t *testing.T) {
	t.Parallel()
	options := map[string]apnstest.Options{
		"Apple's settings": {},
		"tiny windows":     {Settings: apnstest.Settings{InitialWindowSize: new(uint32(7))}},
		"delay":            {Delay: 3 * time.Millisecond},
		"dynamic table":    {IndexAnswers: true, Settings: apnstest.Settings{HeaderTableSize: new(uint32(0))}},
		"required":         {ClientCert: apnstest.ClientCertRequired, Environment: "production"},
	}
	for name, o := range options {
		o.Script = apnstest.ByToken(map[string]apnstest.Answer{"aaaaaaaa": {Status: 410, Timestamp: time.UnixMilli(5)}})
		srv := newServer(t, o)
		for kind, rt := range clients(t, srv) {
			t.Run(name+"/"+kind, func(t *testing.T) {
				ctx := within(t)
				var wg sync.WaitGroup
				for i := range 64 {
					wg.Go(func() {
						status, body, err := roundTrip(ctx, rt, srv, fmt.Sprintf("%08x", i))
						if err != nil || status != 200 || body != "" {
							t.Errorf("%d %q, %v", status, body, err)
						}
					})
				}
				wg.Wait()
				status, body, err := roundTrip(ctx, rt, srv, "aaaaaaaa")
				if err != nil || status != 410 || body != `{"reason":"Unregistered","timestamp":5}` {
					t.Errorf("%d %q, %v", status, body, err)
				}
			})
		}
		if v := srv.Violations(); len(v) > 0 {
			t.Errorf("%s: violations: %q", name, v)
		}
		if n := srv.Count(); n != 3*65 {
			t.Errorf("%s: %d requests, want %d", name, n, 3*65)
		}
	}
}

// TestGoClientFaults: the faults that matter most, as another's client
// reports them.
func TestGoClientFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer apnstest.Answer
		is     func(error) bool
	}{
		{"reset", apnstest.Answer{Reset: new(http2.ErrCodeInternal)}, func(err error) bool {
			var se http2.StreamError
			return errors.As(err, &se) && se.Code == http2.ErrCodeInternal
		}},
		{"goaway and lost", apnstest.Answer{Raw: func(*http2.Framer, uint32) {}, Then: func(c *apnstest.Conn) {
			c.Shutdown(http2.ErrCodeEnhanceYourCalm, apnstest.GoAwayReason("IdleTimeout"))
			c.CloseTLS()
		}}, func(err error) bool {
			var ga http2.GoAwayError
			return errors.As(err, &ga) && ga.DebugData == `{"reason":"IdleTimeout"}` && ga.ErrCode == http2.ErrCodeEnhanceYourCalm
		}},
		{"above the last stream", apnstest.Answer{Raw: func(*http2.Framer, uint32) {}, Then: func(c *apnstest.Conn) {
			c.GoAway(0, http2.ErrCodeNo, nil)
		}}, func(err error) bool { return strings.Contains(err.Error(), "graceful shutdown GOAWAY") }},
		{"lost", apnstest.Answer{Raw: func(*http2.Framer, uint32) {}, Then: (*apnstest.Conn).CloseAbruptly}, func(err error) bool {
			return lost(err) || errors.Is(err, io.ErrUnexpectedEOF) // http2 makes either of a reset
		}},
		{"garbage", apnstest.Answer{Raw: func(*http2.Framer, uint32) {}, Then: func(c *apnstest.Conn) {
			c.WriteRaw(bytes.Repeat([]byte{0xff}, 100))
		}}, func(err error) bool { return errors.Is(err, http2.ErrFrameTooLarge) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, apnstest.Options{Script: apnstest.Always(tt.answer)})
			_, _, err := roundTrip(within(t), clients(t, srv)["http2.ClientConn"], srv, token)
			if err == nil || !tt.is(err) {
				t.Errorf("error %v (%T)", err, err)
			}
		})
	}
}

// TestRequests: what is recorded is what was sent, field by field.
func TestRequests(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	c, _ := dial(t, srv)
	before := time.Now()
	c.push(1, "apns-expiration", "0")
	c.response(1)
	reqs := srv.Requests()
	if len(reqs) != 1 {
		t.Fatalf("%d requests", len(reqs))
	}
	r := reqs[0]
	if r.Conn != 1 || r.Stream != 1 || r.Method != "POST" || r.Path != "/3/device/"+token || r.Token != token ||
		string(r.Body) != `{"aps":{"alert":"x"}}` || r.Answer.Status != 200 || r.At.Before(before) || r.At.After(time.Now()) {
		t.Errorf("recorded %+v", r)
	}
	if r.ClientCert == nil || r.ClientCert.Subject.CommonName != "Apple Push Services: "+topic {
		t.Errorf("client certificate %v", r.ClientCert)
	}
	want := []string{":method", ":scheme", ":path", ":authority", "apns-topic", "apns-push-type", "apns-expiration"}
	if got := r.Header.Names(); !slices.Equal(got, want) {
		t.Errorf("fields %v, want %v", got, want)
	}
	if _, ok := r.Header.Lookup("apns-id"); ok || r.Header.Get("apns-topic") != topic || r.Header.Map()["apns-expiration"] != "0" {
		t.Errorf("fields %v", r.Header)
	}
	if got := srv.Tokens(); !slices.Equal(got, []string{token}) {
		t.Errorf("tokens %v", got)
	}
	srv.ForgetRequests()
	if len(srv.Requests()) != 0 || srv.Count() != 1 {
		t.Errorf("after forgetting: %d kept, %d counted", len(srv.Requests()), srv.Count())
	}
}

// TestRecordBound: only the newest are kept, all are counted.
func TestRecordBound(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{-1, 1, 7, 100} {
		var told atomic.Int64
		srv := newServer(t, apnstest.Options{Record: limit, OnRequest: func(r *apnstest.Request) {
			if r.Answer.Status == 200 && r.Token != "" {
				told.Add(1)
			}
		}})
		c, _ := dial(t, srv)
		for i := range uint32(20) {
			c.push(2*i+1, ":path", fmt.Sprintf("/3/device/%08x", i))
		}
		wantWithin(t, srv.Wait(within(t), 20))
		var want []string
		for i := max(0, 20-max(limit, 0)); i < 20; i++ {
			want = append(want, fmt.Sprintf("%08x", i))
		}
		var got []string
		for _, r := range srv.Requests() {
			got = append(got, r.Token)
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: kept %v, want %v", limit, got, want)
		}
		c.response(39)
		if srv.Count() != 20 || told.Load() != 20 {
			t.Errorf("limit %d: counted %d, told of %d, want 20", limit, srv.Count(), told.Load())
		}
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := srv.Wait(ctx, 0); err != nil {
		t.Errorf("a count that is reached: %v", err)
	}
	if err := srv.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a count that is not: %v", err)
	}
	var waiting sync.WaitGroup
	for n := 1; n <= 5; n++ {
		waiting.Go(func() {
			if err := srv.Wait(within(t), n); err != nil || srv.Count() < int64(n) {
				t.Errorf("waiting for %d: %v at %d", n, err, srv.Count())
			}
		})
	}
	c, _ := dial(t, srv)
	for id := uint32(1); id <= 9; id += 2 {
		c.push(id)
	}
	waiting.Wait()
}

func TestStats(t *testing.T) {
	t.Parallel()
	srv := newServer(t, apnstest.Options{Script: apnstest.TokenCodes})
	c, _ := dial(t, srv)
	for i, end := range []string{"00", "00", "fa170410", "fa170503"} {
		c.push(uint32(2*i+1), ":path", "/3/device/abcdef"+end)
		c.response(uint32(2*i + 1))
	}
	st := srv.Stats()
	if st.Conns != 1 || st.Accepted != 1 || st.Handshakes != 1 || st.Requests != 4 || st.Answered != 4 ||
		st.ByStatus[200] != 2 || st.ByStatus[410] != 1 || st.ByStatus[503] != 1 || len(st.ByStatus) != 3 ||
		st.ByReason["Unregistered"] != 1 || st.ByReason["ServiceUnavailable"] != 1 ||
		st.BodyBytes != 4*21 || st.HeaderBytes == 0 || st.BytesIn < st.BodyBytes+st.HeaderBytes || st.BytesOut == 0 {
		t.Errorf("%+v", st)
	}
}

// TestStress: many connections under everything at once; the counts agree and
// nothing is left behind (goleak).
func TestStress(t *testing.T) {
	t.Parallel()
	script := apnstest.First(
		apnstest.Every(7, apnstest.Answer{Status: 410}),
		apnstest.Every(11, apnstest.Answer{Delay: time.Millisecond}),
		apnstest.Every(13, apnstest.Answer{Reset: new(http2.ErrCodeRefusedStream)}),
		apnstest.Every(401, apnstest.Answer{Then: func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, nil) }}),
		apnstest.Every(499, apnstest.Answer{Then: (*apnstest.Conn).CloseAbruptly}),
		apnstest.Every(17, apnstest.Answer{Then: func(c *apnstest.Conn) { c.MaxStreams(5 + c.LastStream()%50) }}),
	)
	srv := newServer(t, apnstest.Options{Script: script, Record: -1, DropTo1After4xx: true})
	rt := clients(t, srv)["http2.Transport"]
	ctx := within(t)
	var sent sync.WaitGroup
	for i := range 8 {
		sent.Go(func() {
			for j := range 200 {
				roundTrip(ctx, rt, srv, fmt.Sprintf("%08x", i<<16|j)) // how it ends is chance
			}
		})
	}
	sent.Wait()
	st := srv.Stats()
	if st.Requests < 1000 || st.ByStatus[200] == 0 || st.ByStatus[410] == 0 || ctx.Err() != nil {
		t.Errorf("%+v, %v", st, ctx.Err())
	}
}
