package apnsconn

import "time"

// connToken is what one connection sends as authorization. It keeps to a token
// for minTokenUse at least, also if the source has a newer one: a connection
// that begins just before a renewal would otherwise show APNs two tokens within
// minutes, and be refused (jchambers/pushy#811). It belongs to Conn.mu.
type connToken struct {
	source *ProviderToken // nil: nothing is sent
	cur    *token
	since  moment // when cur was first used here
	prev   *token // the one before; nil when there was none
}

// authorization returns the value of the header, "" for none.
func (c *connToken) authorization() string {
	if c.source == nil {
		return ""
	}
	now := c.source.clock()
	latest := c.source.current(now)
	if latest != c.cur && (c.cur == nil || now.since(c.since) >= minTokenUse || c.cur.age(now) >= maxTokenAge) {
		c.prev, c.cur, c.since = c.cur, latest, now
	}
	return c.cur.authorization
}

// expired notes that APNs calls the token expired. It returns how old the token
// is, and whether there is another one by now. c has sent one.
func (c *connToken) expired() (age time.Duration, better bool) {
	c.cur.refused.Store(true)
	now := c.source.clock()
	return c.cur.age(now), c.source.current(now) != c.cur
}

// tooMany goes back to the token before, because APNs calls the new one one too
// many; if there is none, or it is too old, all stays as it is.
func (c *connToken) tooMany() {
	if c.prev == nil {
		return
	}
	if now := c.source.clock(); c.prev.age(now) < maxTokenAge {
		c.prev, c.cur, c.since = nil, c.prev, now
	}
}
