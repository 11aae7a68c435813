package main

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
)

// What a client put without choosing a tube is in the tube default, and a daemon of
// its own takes it from there.
func TestTheTubeDefault(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	c, err := net.Dial("tcp", s.bs.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	job := `{"token":"` + token(1) + `","title":"Hi"}`
	fmt.Fprintf(c, "put 0 0 60 %d\r\n%s\r\n", len(job), job)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "INSERTED") {
		t.Fatalf("%q, %v", line, err)
	}
	startDaemon(t, s.dir)
	startDaemon(t, t.TempDir(), "run", "--topic", topic, "--tube", "default", "--cert", filepath.Join(s.dir, topic+".pem"),
		"--server", s.apns.URL, "--ca-file", filepath.Join(s.dir, "ca.pem"), "--queue", s.bs.URL())
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
	s.putByHand(topic, `{"token":"`+token(2)+`","title":"Hi"}`)
	until(t, "the topic's own tube goes on", func() bool { return s.apns.Count() == 2 })
}
