package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/sideshow/apns2"
	"golang.org/x/net/http2"
)

// newAPNs2 makes sideshow/apns2's client as NewClient does. It dials when
// first used.
func newAPNs2(addr string, roots *x509.CertPool) (*sender, error) {
	client := apns2.NewClient(tls.Certificate{})
	client.Host = "https://" + addr
	//lint:ignore SA1019 it is what apns2 uses
	transport, ok := client.HTTPClient.Transport.(*http2.Transport)
	if !ok {
		return nil, fmt.Errorf("apns2: transport is %T, want *http2.Transport", client.HTTPClient.Transport)
	}
	//lint:ignore SA1019 it is what apns2 uses
	transport.TLSClientConfig.RootCAs = roots
	var list []*apns2.Notification
	for _, s := range shots() {
		list = append(list, &apns2.Notification{
			ApnsID:      s.id,
			DeviceToken: s.token,
			Topic:       topic,
			Expiration:  time.Unix(expiration, 0),
			Priority:    priority,
			PushType:    pushType,
			Payload:     payload(),
		})
	}
	push := func(i int) error {
		answer, err := client.Push(list[i%len(list)])
		if err == nil && !answer.Sent() {
			err = fmt.Errorf("apns2: status %d", answer.StatusCode)
		}
		return err
	}
	return &sender{push: push, load: callers(push), close: client.CloseIdleConnections}, nil
}
