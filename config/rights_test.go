//go:build unix

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
)

// Files with secrets that every user of the machine can read are named, and no others.
func TestRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	const chain = "cert.pem"
	write(t, dir, chain, pemFor(t, "com.example.app", true))
	write(t, dir, "token", []byte("0123456789abcdef\n"))
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "nkey", seed)
	for _, c := range []struct {
		text string
		open []string
		want string
	}{
		{"apps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml"}, ""},
		{"http: {listen: '127.0.0.1:0', auth_token: '${TOKEN}'}\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml"}, ""},
		{"http: {listen: '127.0.0.1:0', auth_token: 0123456789}\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml"}, "propeller.yaml"},
		{"http: {listen: '127.0.0.1:0', auth_token: 0123456789}\napps: [{topic: com.example.app, server: mock}]", nil, ""},
		{"http: {listen: '127.0.0.1:0', auth_token_file: token}\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml", "token"}, "token"},
		{"apps: [{topic: com.example.app, server: mock, cert: " + chain + "}]", []string{"propeller.yaml", chain}, chain},
		{"apps: [{topic: com.example.app, server: mock, cert: " + chain + "}]", []string{"propeller.yaml"}, ""},
		{"apps: [{topic: com.example.app, server: mock, feedback: {webhook: 'https://example.com/', secret_file: token}}]", []string{"propeller.yaml"}, ""},
		{"queue: 'nats://a?creds=token'\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml", "token"}, "token"},
		{"queue: 'nats://a?creds=token'\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml"}, ""},
		{"queue: 'nats://a?nkey=nkey'\napps: [{topic: com.example.app, server: mock}]", []string{"nkey"}, "nkey"},
		{"queue: 'nats://a?cert=cert.pem&key=cert.pem'\napps: [{topic: com.example.app, server: mock}]", []string{chain}, chain},
		{"queue: 'nats://user:0123456789@a'\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml"}, "propeller.yaml"},
		{"queue: 'nats://user:${TOKEN}@a'\napps: [{topic: com.example.app, server: mock}]", []string{"propeller.yaml"}, ""},
	} {
		write(t, dir, "propeller.yaml", []byte(c.text))
		for _, name := range []string{"propeller.yaml", "token", "nkey", chain} {
			if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range c.open {
			if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := Load(filepath.Join(dir, "propeller.yaml"), Options{Getenv: env(map[string]string{"TOKEN": "0123456789"})})
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		got := strings.Join(cfg.Warnings, "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Count(got, dir) > 1 {
			t.Errorf("%s, %q readable: %q, want %q", c.text, c.open, got, c.want)
		}
	}
}

// A state_dir or a queue's folder in which everybody may write is a fault.
func TestSharedStateDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "s")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"state_dir": dir, "queue": "embedded://" + dir} {
		_, err := Parse("test.yaml", []byte(key+": "+value+"\napps: [{topic: a, server: mock}]"), Options{})
		if err == nil || !strings.Contains(err.Error(), "test.yaml:1: "+key) || !strings.Contains(err.Error(), "every user of this machine may write there") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
