package jetstream

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

// cutOff has the other servers of a cluster go on without the first one: they
// know nothing of it any more, and do not let it in.
func (ns *nodes) cutOff(t *testing.T) {
	t.Helper()
	for _, nd := range ns.all[1:] {
		nd.down()
	}
	for _, nd := range ns.all[1:] {
		text, err := os.ReadFile(nd.file)
		if err != nil {
			t.Fatal(err)
		}
		conf := strings.ReplaceAll(string(text), `"nats://`, `"nats://in:side@`)
		conf = strings.Replace(conf, "cluster { ", "cluster { authorization: {user: in, password: side}, ", 1)
		first := conf[strings.Index(conf, "routes: [")+len("routes: ["):]
		first = first[:strings.Index(first, ",")+2]
		conf = strings.Replace(conf, first, "", 1)
		if err := os.WriteFile(nd.file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, nd := range ns.all[1:] {
		if err := nd.up(); err != nil {
			t.Fatal(err)
		}
	}
}

// A daemon whose server is cut off from the others goes to one of those, and work
// goes on though the cut lasts.
func TestServerIsCutOff(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 3)
	log, lines := newLog()
	o := ns.options(t)
	o.Log = log
	q := openReady(t, o)
	nc := q.link.cn.nc
	for nc.ConnectedAddr() != ns.all[0].addr {
		if err := nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is connected", nc.IsConnected)
		awaitReady(t, q)
	}
	c := consumeTest(t, q, "cut")
	mustPut(t, q, "cut", "before")
	mustDone(t, mustReceive(t, c, 1)...)
	got := make(chan queue.Job, 1)
	go func() {
		if jobs, err := c.Receive(ctxOf(t), 1); err == nil {
			got <- jobs[0]
		}
		close(got)
	}()

	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", lines)
		}
	})
	ns.cutOff(t)
	began := time.Now()
	eventually(t, "a put is accepted", func() bool {
		_, err := q.Put(ctxOf(t), "cut", []byte("x"), queue.PutOptions{})
		if err != nil && !errors.Is(err, queue.ErrUnavailable) {
			t.Error(err)
		}
		return err == nil
	})
	t.Logf("accepted after %v", time.Since(began))
	j, ok := <-got
	if !ok {
		t.Fatal("no job is received")
	}
	mustDone(t, j)
	t.Logf("finished after %v", time.Since(began))
	if ns.all[0].addr == nc.ConnectedAddr() {
		t.Error("it is still connected to the server that is cut off")
	}
	if n := strings.Count(lines.String(), "cut off"); n != 1 {
		t.Errorf("the log says so %d times:\n%s", n, lines)
	}
}
