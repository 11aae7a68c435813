package apnsconn

import (
	"crypto/x509"
	"encoding/asn1"
)

// Object identifiers (sources: apns-protocol.md §4 names them; Apple documents
// the push ones in its WWDR certification practice statement).
var (
	oidUserID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1} // RFC 4519, section 2.39

	// oidApplePush is the arc of all extensions of push certificates.
	oidApplePush           = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3}
	oidApplePushSandbox    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidApplePushProduction = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidApplePushVoIPTopics = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 4}
	oidApplePushTopics     = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
)

// readApple takes from the leaf what Apple writes into push certificates.
func (c *Certificate) readApple() {
	c.UID = userID(c.Leaf)
	for _, ext := range c.Leaf.Extensions {
		switch id := ext.Id; {
		case id.Equal(oidApplePushSandbox):
			c.Sandbox, c.Apple = true, true
		case id.Equal(oidApplePushProduction):
			c.Production, c.Apple = true, true
		case id.Equal(oidApplePushTopics):
			c.Topics, c.Apple = append(c.Topics, parseTopics(ext.Value)...), true
		case id.Equal(oidApplePushVoIPTopics):
			c.Topics, c.Apple, c.VoIP = append(c.Topics, parseTopics(ext.Value)...), true, true
		case len(id) > len(oidApplePush) && id[:len(oidApplePush)].Equal(oidApplePush):
			c.Apple = true
		}
	}
}

func userID(cert *x509.Certificate) string {
	for _, name := range cert.Subject.Names {
		if s, ok := name.Value.(string); ok && name.Type.Equal(oidUserID) {
			return s
		}
	}
	return ""
}

// parseTopics reads the topic list: a SEQUENCE in which a UTF8String, the
// topic, and a SEQUENCE of UTF8Strings, its kinds (app, voip, complication),
// take turns. What is no list of this form lists nothing.
func parseTopics(der []byte) []string {
	var items []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &items); err != nil || len(rest) > 0 {
		return nil
	}
	var topics []string
	for _, item := range items {
		if item.Class == asn1.ClassUniversal && item.Tag == asn1.TagUTF8String {
			topics = append(topics, string(item.Bytes))
		}
	}
	return topics
}
