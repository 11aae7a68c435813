package apnstest_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"

	"propeller/apnsconn/apnstest"
)

func Example() {
	srv := apnstest.NewServer(apnstest.Options{
		Script: apnstest.ByToken(map[string]apnstest.Answer{
			"dead0000dead0000": {Status: 410},
		}),
	})
	defer srv.Close()

	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			RootCAs:      srv.CertPool(),
			Certificates: []tls.Certificate{srv.ClientCert("com.example.app")},
		},
	}}
	defer client.CloseIdleConnections()

	for _, token := range []string{"c0ffee00c0ffee00", "dead0000dead0000", "not hex"} {
		body := strings.NewReader(`{"aps":{"alert":"Hello"}}`)
		req, err := http.NewRequest("POST", srv.URL+"/3/device/"+strings.ReplaceAll(token, " ", "%20"), body)
		if err != nil {
			fmt.Println(err)
			return
		}
		req.Header.Set("apns-topic", "com.example.app")
		req.Header.Set("apns-push-type", "alert")
		resp, err := client.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%d %q\n", resp.StatusCode, answer)
	}
	for _, r := range srv.Requests() {
		fmt.Println(r.Method, r.Token, r.Answer.Status)
	}
	// Output:
	// 200 ""
	// 410 "{\"reason\":\"Unregistered\"}"
	// 400 "{\"reason\":\"BadDeviceToken\"}"
	// POST c0ffee00c0ffee00 200
	// POST dead0000dead0000 410
	// POST not%20hex 400
}

// A connection that is told to go while pushes are on it.
func ExampleServer_EachConn() {
	srv := apnstest.NewServer(apnstest.Options{})
	defer srv.Close()

	// … pushes are sent …

	srv.EachConn(func(c *apnstest.Conn) {
		c.Shutdown(0, apnstest.GoAwayReason("Shutdown"))
		c.CloseTLS()
	})
	fmt.Println(srv.Conns(), "connections open")
	// Output: 0 connections open
}

func ExampleParseFault() {
	fault, err := apnstest.ParseFault("status=503,every=100")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := apnstest.NewServer(apnstest.Options{Script: apnstest.Faults(1, fault)})
	defer srv.Close()

	_, err = apnstest.ParseFault("status=503,evry=100")
	fmt.Println(err)
	// Output:
	// apnstest: fault "status=503,evry=100": "evry=100": not known (status, reason, body, nobody, delay, silence, reset, goaway, close, abort, streams; rate, every, nth, token)
}
