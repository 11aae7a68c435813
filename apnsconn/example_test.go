package apnsconn_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
)

// One connection, one push, its outcome.
func Example() {
	srv := apnstest.NewServer(apnstest.Options{AllowAnonymous: true}) // in place of APNs
	defer srv.Close()

	ctx := context.Background()
	conn, err := apnsconn.Dial(ctx, apnsconn.Config{
		Addr:    srv.Addr, // for APNs: see ServerAddr
		RootCAs: srv.CertPool(),
		// Certificate or Token: see the examples of LoadCertificate and LoadKey
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	payload := []byte(`{"aps":{"alert":"Hello"}}`)
	n := &apnsconn.Notification{
		Token:    "740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad",
		Topic:    "com.example.app",
		PushType: apnsconn.InferPushType("com.example.app", payload),
		ID:       "123e4567-e89b-12d3-a456-4266554400a0",
		Payload:  payload,
	}
	if err := n.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	o := conn.Push(ctx, n)
	fmt.Println(o.Class, o.Status, o.APNsID)
	// Output: delivered 200 123e4567-e89b-12d3-a456-4266554400a0
}

// Many pushes from one goroutine: as many are handed over as Free allows, then
// OnChange tells when there is room again.
func ExampleConn_Send() {
	srv := apnstest.NewServer(apnstest.Options{AllowAnonymous: true})
	defer srv.Close()

	changed := make(chan struct{}, 1) // one is enough: what counts is that there was a change
	conn, err := apnsconn.Dial(context.Background(), apnsconn.Config{
		Addr: srv.Addr, RootCAs: srv.CertPool(),
		InFlight: 100,
		OnChange: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	var mu sync.Mutex // callbacks may run at the same time
	count := map[apnsconn.Class]int{}
	done := func(o apnsconn.Outcome) {
		mu.Lock()
		count[o.Class]++
		mu.Unlock()
	}
	for i := 0; i < 1000 && conn.Usable(); {
		for ; i < 1000 && conn.Free() > 0; i++ {
			conn.Send(push(fmt.Sprintf("%064x", i)), done)
		}
		<-changed
	}
	if err := conn.Drain(context.Background()); err != nil { // all callbacks have been made after it
		fmt.Println(err)
	}
	fmt.Println(count[apnsconn.Delivered], "delivered over", srv.Dials(), "connection")
	// Output: 1000 delivered over 1 connection
}

// What to do next, by class.
func ExampleOutcome() {
	srv := apnstest.NewServer(apnstest.Options{
		AllowAnonymous: true,
		Script: apnstest.Seq(
			apnstest.Answer{},
			apnstest.Answer{Status: 410, Timestamp: time.Unix(1700000000, 0)},
			apnstest.Answer{Reason: "PayloadTooLarge"},
			apnstest.Answer{Reason: "TooManyRequests"},
			apnstest.Answer{Reason: "InternalServerError"},
		),
	})
	defer srv.Close()
	conn, err := apnsconn.Dial(context.Background(), apnsconn.Config{Addr: srv.Addr, RootCAs: srv.CertPool()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	for range 5 {
		switch o := conn.Push(context.Background(), push("c0ffee00c0ffee00")); o.Class {
		case apnsconn.Delivered:
			fmt.Println("done")
		case apnsconn.Token:
			fmt.Println("forget the device token:", o.Reason, "since", o.Since.UTC().Format(time.DateOnly))
		case apnsconn.Rejected:
			fmt.Println("will never work:", apnsconn.ReasonText(o.Status, o.Reason))
		case apnsconn.Throttled, apnsconn.Unavailable:
			fmt.Println("again later:", o.Status, o.Reason)
		case apnsconn.Credential:
			fmt.Println("stop everything:", o.Reason)
		case apnsconn.NotSent:
			fmt.Println("again at once:", o.Err)
		case apnsconn.Unknown:
			fmt.Println("again, perhaps as a duplicate:", o.Err)
		}
	}
	// Output:
	// done
	// forget the device token: Unregistered since 2023-11-14
	// will never work: the payload is over 4096 bytes (5120 for voip and broadcasts)
	// again later: 429 TooManyRequests
	// again later: 500 InternalServerError
}

// The owner of a connection dials again when it has something to send, one
// connection at a time, and after a failure not at once.
func Example_reconnect() {
	srv := apnstest.NewServer(apnstest.Options{AllowAnonymous: true, Script: apnstest.Nth(2, apnstest.Answer{
		Then: func(c *apnstest.Conn) { c.Shutdown(0, apnstest.GoAwayReason("Shutdown")) },
	})})
	defer srv.Close()
	cfg := apnsconn.Config{Addr: srv.Addr, RootCAs: srv.CertPool()}

	ctx := context.Background()
	var conn *apnsconn.Conn
	pause := time.Second
	for sent := 0; sent < 4; {
		if conn == nil || !conn.Usable() {
			if conn != nil {
				<-conn.Done()
				fmt.Println("ended:", conn.Err())
			}
			var err error
			if conn, err = apnsconn.Dial(ctx, cfg); errors.Is(err, apnsconn.ErrCredential) {
				fmt.Println("no use in trying again:", err)
				return
			} else if err != nil {
				time.Sleep(pause) // plus some chance, and no longer than ctx
				pause = min(2*pause, time.Minute)
				continue
			}
		}
		switch o := conn.Push(ctx, push("c0ffee00c0ffee00")); o.Class {
		case apnsconn.Delivered:
			pause = time.Second
			sent++
			if sent == 2 { // so that this example always prints the same
				<-conn.Done()
			}
		case apnsconn.NotSent: // the same push again
		default:
			fmt.Println(o.Class, o.Reason, o.Err)
			return
		}
	}
	conn.Close()
	fmt.Println("4 pushes over", srv.Dials(), "connections")
	// Output:
	// ended: apnsconn: server ended the connection (GOAWAY NO_ERROR): Shutdown
	// 4 pushes over 2 connections
}

// A broadcast goes to all devices that follow a channel, over the same connection.
func ExampleNotification_broadcast() {
	srv := apnstest.NewServer(apnstest.Options{AllowAnonymous: true, NoValidation: true})
	defer srv.Close()
	conn, err := apnsconn.Dial(context.Background(), apnsconn.Config{Addr: srv.Addr, RootCAs: srv.CertPool()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	expiration := int64(0) // not stored
	n := &apnsconn.Notification{
		ChannelID:  "dHN0LXNyY2gtY2hubA==",
		Topic:      "com.example.app",
		PushType:   "liveactivity",
		Expiration: &expiration,
		Payload:    []byte(`{"aps":{"timestamp":1700000000,"event":"update","content-state":{"score":"1:0"}}}`),
	}
	if err := n.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	o := conn.Push(context.Background(), n)
	fmt.Println(o.Class, srv.Requests()[0].Path)
	// Output: delivered /4/broadcasts/apps/com.example.app
}

func push(token string) *apnsconn.Notification {
	return &apnsconn.Notification{
		Token:    token,
		Topic:    "com.example.app",
		PushType: "alert",
		Payload:  []byte(`{"aps":{"alert":"Hello"}}`),
	}
}
