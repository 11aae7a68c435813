package apnsconn

import (
	"strings"
	"testing"
)

func TestServerAddr(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, addr string
		env        Environment
	}{
		{"production", "api.push.apple.com:443", Production},
		{"sandbox", "api.sandbox.push.apple.com:443", Sandbox},
		{"https://api.push.apple.com:2197", "api.push.apple.com:2197", Production},
		{"https://API.Push.Apple.com", "api.push.apple.com:443", Production},
		{"https://api.sandbox.push.apple.com", "api.sandbox.push.apple.com:443", Sandbox},
		{"https://api.development.push.apple.com:2197", "api.development.push.apple.com:2197", Sandbox},
		{"https://127.0.0.1:8443", "127.0.0.1:8443", Other},
		{"https://[::1]:8443", "[::1]:8443", Other},
		{"https://[::1]", "[::1]:443", Other},
		{"https://apns.example.com/", "apns.example.com:443", Other},
		{"https://api.push.apple.com.example.org", "api.push.apple.com.example.org:443", Other},
	}
	for _, tt := range tests {
		addr, env, err := ServerAddr(tt.name)
		if addr != tt.addr || env != tt.env || err != nil {
			t.Errorf("ServerAddr(%q) = %q, %s, %v; want %q, %s", tt.name, addr, env, err, tt.addr, tt.env)
		}
	}
}

func TestServerAddrErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text string }{
		{"", `server "": want production, sandbox or https://host:port`},
		{"prod", `server "prod": want production, sandbox or https://host:port`},
		{"Production", "want production, sandbox or https://host:port"},
		{"mock", "want production, sandbox or https://host:port"}, // the caller's matter
		{"api.push.apple.com:443", "want production, sandbox or https://host:port"},
		{"https://", "want production, sandbox or https://host:port"},
		{"https://:443", "the host is missing"},
		{"https://a b", "want production, sandbox or https://host:port"},
		{"http://127.0.0.1:8080", "APNs is reached by https only"},
		{"ftp://127.0.0.1", "APNs is reached by https only"},
		{"https://host/3/device", "with nothing after it"},
		{"https://host?x=1", "with nothing after it"},
		{"https://host?", "with nothing after it"},
		{"https://host#x", "with nothing after it"},
		{"https://host:0", "the port is not between 1 and 65535"},
		{"https://host:65536", "the port is not between 1 and 65535"},
		{"https://host:https", "want production, sandbox or https://host:port"},
		{"https://user:hunter2@host", "has no user and password"},
		{"http://user:hunter2@host", "https only"},
		{"https://user:hunter2@ho st", "want production"},
	}
	for _, tt := range tests {
		addr, env, err := ServerAddr(tt.name)
		if err == nil || addr != "" || env != Other {
			t.Errorf("ServerAddr(%q) = %q, %s, %v; want an error", tt.name, addr, env, err)
			continue
		}
		if !strings.Contains(err.Error(), tt.text) || !strings.HasPrefix(err.Error(), "apnsconn: server ") {
			t.Errorf("ServerAddr(%q): %v; want %q in it", tt.name, err, tt.text)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error holds the password: %v", err)
		}
	}
}

func TestEnvironmentString(t *testing.T) {
	t.Parallel()
	for env, want := range map[Environment]string{Production: "production", Sandbox: "sandbox", Other: "other", 99: "other"} {
		if got := env.String(); got != want {
			t.Errorf("%d: %q, want %q", env, got, want)
		}
	}
}
