package apnsconn

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Environment is one of the two worlds of APNs. Device tokens, and most
// certificates and keys, belong to one of them.
type Environment uint8

// The environments; Other is a server that is not Apple's, which may stand for
// either.
const (
	Other Environment = iota
	Production
	Sandbox
)

// String is production, sandbox or other.
func (e Environment) String() string {
	switch e {
	case Production:
		return "production"
	case Sandbox:
		return "sandbox"
	}
	return "other"
}

// Apple's servers (Apple: sending-notification-requests-to-apns). The third is
// another name of the sandbox (establishing-a-connection-to-apns).
const (
	hostProduction  = "api.push.apple.com"
	hostSandbox     = "api.sandbox.push.apple.com"
	hostDevelopment = "api.development.push.apple.com"
)

// ServerAddr returns the host:port to dial for a server's name in a
// configuration: production, sandbox, or https://host:port, where the port is
// 443 if absent. An https address of Apple's has Apple's environment, so that
// https://api.push.apple.com:2197 is Production; any other is Other.
//
// The error says what is wrong with the name, quotes it, and holds no password
// that an address may carry.
func ServerAddr(name string) (addr string, env Environment, err error) {
	switch name {
	case "production":
		return hostProduction + ":443", Production, nil
	case "sandbox":
		return hostSandbox + ":443", Sandbox, nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "", Other, serverError(withoutUserinfo(name), "want production, sandbox or https://host:port")
	}
	shown := u.Redacted()
	switch {
	case u.Scheme != "https":
		return "", Other, serverError(shown, "APNs is reached by https only: want https://host:port")
	case u.User != nil:
		return "", Other, serverError(shown, "an APNs server takes no user and password; remove them")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return "", Other, serverError(shown, "want https://host:port with nothing after it")
	case u.Hostname() == "":
		return "", Other, serverError(shown, "the host is missing: want https://host:port")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", Other, serverError(shown, "the port is not between 1 and 65535")
	}
	host := strings.ToLower(u.Hostname())
	return net.JoinHostPort(host, port), hostEnvironment(host), nil
}

func hostEnvironment(host string) Environment {
	switch host {
	case hostProduction:
		return Production
	case hostSandbox, hostDevelopment:
		return Sandbox
	}
	return Other
}

func serverError(name, why string) error {
	return fmt.Errorf("apnsconn: server %q: %s", name, why)
}

// withoutUserinfo removes what may be a user and password from text that is no
// address.
func withoutUserinfo(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "…" + s[i:]
	}
	return s
}
