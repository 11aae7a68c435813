package neterr

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// refused is what a dial says where nobody listens.
func refused(t *testing.T) (addr string, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	_, err = net.Dial("tcp", addr)
	return addr, err
}

// silent is what a read says when nothing comes in time.
func silent(t *testing.T) (addr string, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetReadDeadline(time.Now())
	_, err = nc.Read(make([]byte, 1))
	return l.Addr().String(), err
}

func TestPlain(t *testing.T) {
	t.Parallel()
	closed, refusal := refused(t)
	open, silence := silent(t)
	reset := &net.OpError{
		Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 9), Port: 5}, Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7},
		Err: os.NewSyscallError("read", syscall.ECONNRESET),
	}
	lookup := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
		Err: "read udp 10.0.0.9:5353->10.0.0.1:53: i/o timeout", Name: "push.example", Server: "10.0.0.1:53", IsTimeout: true,
	}}
	for _, tt := range []struct {
		err    error
		server string
		want   string
		is     error
	}{
		{refusal, closed, "connection refused", syscall.ECONNREFUSED},
		{refusal, "localhost:1", "dial tcp " + closed + ": connection refused", syscall.ECONNREFUSED},
		{fmt.Errorf("watch: %w", silence), open, "watch: i/o timeout", os.ErrDeadlineExceeded},
		{silence, "", "read tcp " + open + ": i/o timeout", os.ErrDeadlineExceeded},
		{reset, "push.example:7", "read tcp 10.0.0.1:7: connection reset by peer", syscall.ECONNRESET},
		{lookup, "push.example:443", "dial tcp: lookup push.example on 10.0.0.1:53: read udp 10.0.0.1:53: i/o timeout", lookup},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, "a:1", "remote error: tls: bad certificate", tls.AlertError(42)},
		{errors.New("odd -> even"), "a:1", "odd -> even", nil},
		{context.Canceled, "a:1", "context canceled", context.Canceled},
	} {
		got := Plain(tt.err, tt.server)
		if got.Error() != tt.want || tt.is != nil && !errors.Is(got, tt.is) {
			t.Errorf("%v\ngot  %v\nwant %s", tt.err, got, tt.want)
		}
	}
	if Plain(nil, "") != nil {
		t.Error("no error became one")
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"read tcp 10.0.0.9:50001->a:4222: reset", "read tcp 10.0.0.9:50002->a:4222: reset", true},
		{"[::1]:1 refused", "[::1]:65535 refused", true},
		{"a refused", "a: no route", false},
		{"429: a", "500: a", false},
	} {
		if got := Same(errors.New(tt.a), errors.New(tt.b)); got != tt.same {
			t.Errorf("%s, %s: %v", tt.a, tt.b, got)
		}
	}
}
