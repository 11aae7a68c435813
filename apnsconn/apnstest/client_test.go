package apnstest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"propeller/apnsconn/apnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topic = "com.example.app"
	token = "0123456789abcdef0123456789abcdef"
)

// patience bounds every wait of the tests. It is only met when something is
// broken.
const patience = 20 * time.Second

func newServer(t testing.TB, o apnstest.Options) *apnstest.Server {
	t.Helper()
	s := apnstest.NewServer(o)
	t.Cleanup(s.Close)
	return s
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// client is a small HTTP/2 client that writes and reads single frames.
type client struct {
	t    testing.TB
	conn *tls.Conn
	fr   *http2.Framer
	hbuf bytes.Buffer
	enc  *hpack.Encoder
	dec  *hpack.Decoder

	block []byte // of a header block that is not complete yet
}

// event is a frame that was read.
type event struct {
	typ      http2.FrameType
	stream   uint32
	end      bool // END_STREAM
	ack      bool
	fields   apnstest.Header // of a complete header block
	data     []byte          // DATA, GOAWAY's debug data, PING, unknown
	padded   bool
	code     http2.ErrCode
	last     uint32
	incr     uint32
	settings []http2.Setting
}

// dialRaw connects without a word of HTTP/2.
func dialRaw(t testing.TB, s *apnstest.Server, certs ...tls.Certificate) (*client, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{RootCAs: s.CertPool(), NextProtos: []string{"h2"}, Certificates: certs}}
	nc, err := d.DialContext(within(t), "tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	c := &client{t: t, conn: nc.(*tls.Conn)}
	c.fr = http2.NewFramer(nc, nc)
	c.fr.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.hbuf)
	c.dec = hpack.NewDecoder(4096, nil)
	return c, nil
}

// dial connects and exchanges SETTINGS. It returns the server's.
func dial(t testing.TB, s *apnstest.Server, own ...http2.Setting) (*client, []http2.Setting) {
	t.Helper()
	c, err := dialRaw(t, s, s.ClientCert(topic))
	if err != nil {
		t.Fatal(err)
	}
	c.hello(own...)
	first := c.next()
	if first.typ != http2.FrameSettings || first.ack {
		t.Fatalf("first frame: %+v, want SETTINGS", first)
	}
	c.fr.WriteSettingsAck()
	if ev := c.until(http2.FrameSettings); !ev.ack {
		t.Fatalf("second SETTINGS: %+v, want the acknowledgement of ours", ev)
	}
	return c, first.settings
}

// hello writes the preface and SETTINGS.
func (c *client) hello(own ...http2.Setting) {
	io.WriteString(c.conn, http2.ClientPreface)
	c.fr.WriteSettings(own...)
}

// next reads one frame.
func (c *client) next() event {
	c.t.Helper()
	ev, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return ev
}

func (c *client) read() (event, error) {
	f, err := c.fr.ReadFrame()
	if err != nil {
		return event{}, err
	}
	h := f.Header()
	ev := event{typ: h.Type, stream: h.StreamID}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		ev.end, ev.padded = f.StreamEnded(), h.Flags.Has(http2.FlagHeadersPadded)
		err = c.gather(&ev, f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		err = c.gather(&ev, f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		ev.end, ev.data, ev.padded = f.StreamEnded(), slices.Clone(f.Data()), h.Flags.Has(http2.FlagDataPadded)
	case *http2.SettingsFrame:
		ev.ack = f.IsAck()
		f.ForeachSetting(func(s http2.Setting) error { ev.settings = append(ev.settings, s); return nil })
	case *http2.GoAwayFrame:
		ev.code, ev.last, ev.data = f.ErrCode, f.LastStreamID, slices.Clone(f.DebugData())
	case *http2.RSTStreamFrame:
		ev.code = f.ErrCode
	case *http2.WindowUpdateFrame:
		ev.incr = f.Increment
	case *http2.PingFrame:
		ev.ack, ev.data = f.IsAck(), f.Data[:]
	case *http2.UnknownFrame:
		ev.data = slices.Clone(f.Payload())
	}
	return ev, err
}

func (c *client) gather(ev *event, frag []byte, done bool) error {
	c.block = append(c.block, frag...)
	if !done {
		return nil
	}
	fields, err := c.dec.DecodeFull(c.block)
	ev.fields, c.block = fields, nil
	return err
}

// until reads frames until one is of type typ, and returns it.
func (c *client) until(typ http2.FrameType) event {
	c.t.Helper()
	for {
		if ev := c.next(); ev.typ == typ {
			return ev
		}
	}
}

// rest reads frames until the connection ends. It returns them and the error.
func (c *client) rest() ([]event, error) {
	var all []event
	for {
		ev, err := c.read()
		if err != nil {
			return all, err
		}
		all = append(all, ev)
	}
}

// fields of a push that APNs accepts; with replaces, adds or (with "")
// removes some, given as name, value, name, value …
func pushFields(with ...string) []string {
	fields := []string{
		":method", "POST", ":scheme", "https", ":path", "/3/device/" + token, ":authority", "stand-in",
		"apns-topic", topic, "apns-push-type", "alert",
	}
	for i := 0; i < len(with); i += 2 {
		name, value := with[i], with[i+1]
		at := -1
		for j := 0; j < len(fields); j += 2 {
			if fields[j] == name {
				at = j
			}
		}
		switch {
		case at >= 0 && value == "":
			fields = slices.Delete(fields, at, at+2)
		case at >= 0:
			fields[at+1] = value
		case value != "":
			fields = append(fields, name, value)
		}
	}
	return fields
}

// encode returns a header block.
func (c *client) encode(fields ...string) []byte {
	c.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.hbuf.Bytes()
}

func (c *client) headers(stream uint32, end bool, fields ...string) {
	c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: c.encode(fields...), EndStream: end, EndHeaders: true,
	})
}

// push sends a whole push on stream.
func (c *client) push(stream uint32, with ...string) {
	c.headers(stream, false, pushFields(with...)...)
	c.fr.WriteData(stream, true, []byte(`{"aps":{"alert":"x"}}`))
}

// response is an answer put together from its frames.
type response struct {
	status string
	header apnstest.Header
	body   string
	frames []event
}

// response reads what is sent on stream until it ends, leaving other frames out.
func (c *client) response(stream uint32) response {
	c.t.Helper()
	var r response
	for {
		ev := c.next()
		if ev.stream != stream {
			if ev.typ == http2.FrameGoAway {
				c.t.Fatalf("GOAWAY %v %q, want an answer on stream %d", ev.code, ev.data, stream)
			}
			continue
		}
		r.frames = append(r.frames, ev)
		switch ev.typ {
		case http2.FrameRSTStream:
			c.t.Fatalf("RST_STREAM %v, want an answer on stream %d", ev.code, stream)
		case http2.FrameHeaders:
			if s := ev.fields.Get(":status"); s != "" {
				r.status, r.header = s, ev.fields
			}
		case http2.FrameContinuation:
			if s := ev.fields.Get(":status"); s != "" {
				r.status, r.header = s, ev.fields
			}
		case http2.FrameData:
			r.body += string(ev.data)
		}
		if ev.end {
			return r
		}
	}
}

// onlyConn returns the one connection that is open.
func onlyConn(t testing.TB, s *apnstest.Server) *apnstest.Conn {
	t.Helper()
	if err := s.WaitHandshakes(within(t), 1); err != nil {
		t.Fatal(err)
	}
	var only *apnstest.Conn
	s.EachConn(func(c *apnstest.Conn) {
		if only != nil {
			t.Fatal("more than one connection is open")
		}
		only = c
	})
	if only == nil {
		t.Fatal("no connection is open")
	}
	return only
}

func wantWithin(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lost reports whether err is a TCP reset.
func lost(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "read"
}

// verify checks a certificate against the server's authority.
func verify(s *apnstest.Server, cert *x509.Certificate) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: s.CertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}
