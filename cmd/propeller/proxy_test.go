package main

import (
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
)

// check shows the way each app takes, without the proxy's password.
func TestCheckShowsProxy(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.cert("com.example.one")
	s.cert("com.example.two")
	s.write("propeller.yaml", `
defaults: {server: "https://apns.invalid:2197", ca_file: ca.pem, proxy: "http://me:hunter2@proxy.invalid:3128"}
apps:
  - {topic: com.example.one, cert: com.example.one.pem}
  - {topic: com.example.two, cert: com.example.two.pem, proxy: none}
`)
	r := runProgram(t, s.dir, "", "check")
	if r.status != 0 || !strings.Contains(r.out, " https://apns.invalid:2197 through http://[secret]@proxy.invalid:3128 ") ||
		!strings.Contains(r.out, "com.example.two  https://apns.invalid:2197  ") || strings.Contains(r.out+r.err, "hunter2") {
		t.Errorf("%+v", r)
	}
}
