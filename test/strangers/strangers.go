// Package strangers plays clients that show no key and mean ill: each takes what a
// daemon's HTTP server gives to whom it does not know, holds it, and comes again
// when it is sent away.
package strangers

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Way is one way to take what one gets: what is done on one connection until it
// is closed.
type Way struct {
	Name string
	Do   func(*Peer) error
}

// Ways are all, the dearest known of each kind.
func Ways() []Way {
	return []Way{
		{"streams with large heads and bodies, no window", manyStreams},
		{"large answers that nobody reads", unreadAnswers},
		{"forms that stop over HTTP/2", http2Form},
		{"forms that stop over HTTP/1", http1Form},
		{"forms of very many parameters with wrong keys", manyParameters},
		{"heads of very many lines", manyLines},
		{"a head that goes on and on over HTTP/2", halfHead},
		{"pings, settings and resets", controlFrames},
		{"handshakes that stop", halfHandshake},
		{"idle connections", idle},
		{"idle connections of HTTP/2", idleHTTP2},
		{"wrong keys", wrongKeys},
	}
}

// Crowd are strangers at one address.
type Crowd struct {
	Addr string

	Dialled atomic.Int64 // connections so far
	Held    atomic.Int64 // connections at this moment
}

// Run has n strangers of each way come, and come again as often as they are sent
// away, until ctx ends. It returns when all are gone.
func (c *Crowd) Run(ctx context.Context, n int, ways ...Way) {
	var all sync.WaitGroup
	for range n {
		for _, way := range ways {
			all.Go(func() {
				for ctx.Err() == nil {
					c.visit(ctx, way)
					pause(ctx, 100*time.Millisecond)
				}
			})
		}
	}
	all.Wait()
}

// pause waits a moment, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *Crowd) visit(ctx context.Context, way Way) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c.Dialled.Add(1)
	c.Held.Add(1)
	defer c.Held.Add(-1)
	_ = way.Do(&Peer{ctx: ctx, raw: conn}) // whoever is sent away comes again
}

// Peer is one connection of a stranger.
type Peer struct {
	ctx  context.Context
	raw  net.Conn
	conn *tls.Conn
	fr   *http2.Framer
	next uint32 // stream
}

// shake speaks TLS, and then a protocol.
func (p *Peer) shake(proto string) error {
	p.conn = tls.Client(p.raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}) // it trusts nobody
	return p.conn.HandshakeContext(p.ctx)
}

// http2 begins HTTP/2 with a window of no byte for the answers.
func (p *Peer) http2() error {
	if err := p.shake("h2"); err != nil {
		return err
	}
	if _, err := io.WriteString(p.conn, http2.ClientPreface); err != nil {
		return err
	}
	p.fr, p.next = http2.NewFramer(p.conn, p.conn), 1
	return p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
}

// request begins one over HTTP/2, its head filled up to so many bytes.
func (p *Peer) request(method, path string, head int, more ...string) (stream uint32, err error) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	size := 0
	field := func(name, value string) {
		size += len(name) + len(value) + 32 // as it is counted (RFC 9113, section 6.5.2)
		_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true})
	}
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		field(f[0], f[1])
	}
	for i := 0; i+1 < len(more); i += 2 {
		field(more[i], more[i+1])
	}
	for i := 0; size < head-40; i++ { // short ones: each takes an entry of a map
		field(fmt.Sprint("x", i), "")
	}
	stream = p.next
	p.next += 2
	text := block.Bytes()
	first := text[:min(len(text), 16<<10)]
	err = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: len(first) == len(text), EndStream: method == "GET"})
	if rest := text[len(first):]; len(rest) > 0 && err == nil {
		err = p.fr.WriteContinuation(stream, true, rest)
	}
	return stream, err
}

// data sends a part of a body.
func (p *Peer) data(stream uint32, n int) (err error) {
	part := bytes.Repeat([]byte("x"), 16<<10)
	for ; n > 0 && err == nil; n -= len(part) {
		err = p.fr.WriteData(stream, false, part[:min(n, len(part))])
	}
	return err
}

// hold reads what comes, without heeding it, until the connection ends.
func (p *Peer) hold() error {
	_, err := io.Copy(io.Discard, p.conn)
	return err
}

const (
	fullHead = 8 << 10 // what a stranger's head may have
	oldHead  = 14500   // what it could have once
	kind     = "application/x-www-form-urlencoded"
)

func manyStreams(p *Peer) error {
	if err := p.http2(); err != nil {
		return err
	}
	head := oldHead
	for i := range 16 {
		s, err := p.request("POST", []string{"/post", "/v1/notifications", "/login"}[i%3], head, "content-type", kind, "sec-fetch-site", "same-origin")
		if err == nil {
			err = p.data(s, 16<<10-100)
		}
		if err != nil {
			return err
		}
	}
	return p.hold()
}

func unreadAnswers(p *Peer) error {
	if err := p.http2(); err != nil {
		return err
	}
	for range 16 {
		if _, err := p.request("GET", "/openapi.yaml", fullHead-1000); err != nil {
			return err
		}
	}
	return p.hold()
}

func http2Form(p *Peer) error {
	if err := p.http2(); err != nil {
		return err
	}
	s, err := p.request("POST", "/post", fullHead-1000, "content-type", kind)
	if err == nil {
		err = p.data(s, 64<<10-10)
	}
	if err != nil {
		return err
	}
	return p.hold()
}

// http1 begins HTTP/1 and sends text.
func (p *Peer) http1(text string) error {
	if err := p.shake("http/1.1"); err != nil {
		return err
	}
	if _, err := io.WriteString(p.conn, text); err != nil {
		return err
	}
	return p.hold()
}

// lines are as many headers as fit.
func lines(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size-10; i++ {
		fmt.Fprintf(&b, "%s:\r\n", shortName(i))
	}
	return b.String()
}

func shortName(i int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	return string([]byte{letters[i%26], letters[i/26%36], letters[i/26/36%36]})
}

func http1Form(p *Peer) error {
	return p.http1("POST /post HTTP/1.1\r\nHost: x\r\n" + lines(fullHead-500) + "Content-Type: " + kind + "\r\nContent-Length: 65000\r\n\r\n" + strings.Repeat("x", 64<<10-1000))
}

func manyParameters(p *Peer) error {
	const n = 64<<10 - 200
	form := "auth_token=wrong&topic=x&token=y"
	var b strings.Builder
	b.WriteString(form)
	for i := 0; b.Len() < n-5; i++ {
		b.WriteString("&" + shortName(i))
	}
	return p.http1(fmt.Sprintf("POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, b.Len(), b.String()))
}

func manyLines(p *Peer) error {
	return p.http1("GET /healthz HTTP/1.1\r\nHost: x\r\n" + lines(fullHead-100))
}

func halfHead(p *Peer) error {
	if err := p.http2(); err != nil {
		return err
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range 150 {
		_ = enc.WriteField(hpack.HeaderField{Name: fmt.Sprint("x", i), Value: "", Sensitive: true})
	}
	if err := p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()}); err != nil {
		return err
	}
	for range 10_000 {
		if err := p.fr.WriteContinuation(1, false, nil); err != nil {
			return err
		}
	}
	return p.hold()
}

// controlFrames has answers pile up that nobody reads.
func controlFrames(p *Peer) error {
	if err := p.http2(); err != nil {
		return err
	}
	for p.ctx.Err() == nil {
		for range 100 {
			_ = p.fr.WritePing(false, [8]byte{})
			_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		}
		s, err := p.request("GET", "/openapi.yaml", fullHead-1000)
		if err == nil {
			err = p.fr.WriteRSTStream(s, http2.ErrCodeCancel)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// halfHandshake claims a ClientHello of 60 kB and leaves out its end.
func halfHandshake(p *Peer) error {
	const size = 60_000
	hello := append([]byte{1, 0, size >> 8, size & 0xff}, make([]byte, size-1000)...)
	for len(hello) > 0 {
		part := hello[:min(len(hello), 16<<10)]
		if _, err := p.raw.Write(append([]byte{22, 3, 1, byte(len(part) >> 8), byte(len(part))}, part...)); err != nil {
			return err
		}
		hello = hello[len(part):]
	}
	_, err := io.Copy(io.Discard, p.raw)
	return err
}

func idle(p *Peer) error { return p.http1("") }

func idleHTTP2(p *Peer) error {
	if err := p.http2(); err != nil {
		return err
	}
	return p.hold()
}

func wrongKeys(p *Peer) error {
	return p.http1("GET /v1/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong-0123\r\n" + lines(fullHead-500) + "\r\n")
}
