package apnstest

import "slices"

// stream is one open stream. Its fields are the reader's while the request
// arrives and the writer's afterwards; those in the second group need conn.mu.
type stream struct {
	id    uint32
	head  head
	req   *Request
	own   Request // what req points at when requests are not kept
	ended bool    // END_STREAM was received; written under conn.mu too, for others to read

	used   int64  // DATA received, less the WINDOW_UPDATEs sent for it
	credit int64  // WINDOW_UPDATEs received, less the DATA sent
	rest   []byte // of the answer's body, not sent yet
	held   bool   // arriving, being decided or delayed: not to be reused
	closed bool   // not in conn.streams any more
}

// open makes a stream. It needs c.mu.
func (c *conn) open(id uint32) *stream {
	var st *stream
	if n := len(c.spare); n > 0 {
		st = c.spare[n-1]
		c.spare = c.spare[:n-1]
		own := st.own
		*st = stream{own: own}
	} else {
		st = new(stream)
	}
	st.id = id
	st.held = true
	c.streams[id] = st
	return st
}

// close forgets a stream. One that is closed while it is held is left to the
// garbage collector. It needs c.mu.
func (c *conn) close(st *stream) {
	if st.closed {
		return
	}
	st.closed = true
	delete(c.streams, st.id)
	if st.rest != nil {
		st.rest = nil
		c.blocked = slices.DeleteFunc(c.blocked, func(b *stream) bool { return b == st })
	}
	if !st.held {
		c.spare = append(c.spare, st)
	}
}

// fill makes st's request from the fields just decoded.
func (c *conn) fill(st *stream) {
	fields := c.in.fields
	if c.srv.opt.Record < 0 {
		own := &st.own
		*own = Request{Header: append(own.Header[:0], fields...), Body: own.Body[:0]}
		st.req = own
	} else {
		st.req = &Request{Header: append(make(Header, 0, len(fields)), fields...)}
	}
	req := st.req
	req.Conn, req.Stream, req.ClientCert = c.id, st.id, c.cert
	req.Method, req.Path = st.head.method, st.head.path
	if len(req.Path) > len(devicePath) && req.Path[:len(devicePath)] == devicePath {
		req.Token = req.Path[len(devicePath):]
	}
}

// addBody keeps what of p fits.
func (st *stream) addBody(p []byte) {
	st.req.BodySize += len(p)
	keep := min(len(p), maxBodyKept-len(st.req.Body))
	st.req.Body = append(st.req.Body, p[:keep]...)
}
