package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"
)

// dialClientConn opens x/net's client connection, without pool or http.Client
// above it.
func dialClientConn(ctx context.Context, addr string, roots *x509.CertPool) (*sender, error) {
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}}}
	nc, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 it is what shall be measured
	conn, err := new(http2.Transport).NewClientConn(nc)
	if err != nil {
		_ = nc.Close() // of no use
		return nil, err
	}
	list, body := shots(), payload()
	push := func(i int) error {
		s := list[i%len(list)]
		req, err := http.NewRequest(http.MethodPost, "https://"+addr+pathOf(s.token), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("apns-topic", topic)
		req.Header.Set("apns-push-type", pushType)
		req.Header.Set("apns-id", s.id)
		req.Header.Set("apns-priority", strconv.Itoa(priority))
		req.Header.Set("apns-expiration", strconv.Itoa(expiration))
		answer, err := conn.RoundTrip(req)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("http2.ClientConn: status %d", answer.StatusCode)
		}
		return nil
	}
	return &sender{push: push, load: callers(push), close: func() { _ = conn.Close() }}, nil
}
