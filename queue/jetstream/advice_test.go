package jetstream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"propeller/queue"
)

// operator is who gives out credentials for one account of a server.
type operator struct {
	account  nkeys.KeyPair
	operator string // JWTs
	system   string
	systemID string
	users    string
	usersID  string
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	key := func(kp nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		id, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return kp, id
	}
	ok, oid := key(nkeys.CreateOperator())
	_, sid := key(nkeys.CreateAccount())
	ak, aid := key(nkeys.CreateAccount())
	o := &operator{account: ak, systemID: sid, usersID: aid}
	users := jwt.NewAccountClaims(aid)
	users.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	users.Limits.Conn = 1
	op := jwt.NewOperatorClaims(oid)
	op.SystemAccount = sid
	for claims, to := range map[jwt.Claims]*string{op: &o.operator, jwt.NewAccountClaims(sid): &o.system, users: &o.users} {
		text, err := claims.Encode(ok)
		if err != nil {
			t.Fatal(err)
		}
		*to = text
	}
	return o
}

// start starts a server that trusts the operator.
func (o *operator) start(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	nd := &node{file: filepath.Join(dir, "n.conf")}
	text := fmt.Sprintf("listen: 127.0.0.1:-1\njetstream { store_dir: %q }\noperator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n %s: %s\n %s: %s\n}\n",
		dir, o.operator, o.systemID, o.systemID, o.system, o.usersID, o.users)
	if err := os.WriteFile(nd.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := nd.up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nd.down)
	nd.addr = nd.server.Addr().String()
	return nd
}

// credentials writes a file with credentials that end after a time.
func (o *operator) credentials(t *testing.T, file string, after time.Duration) {
	t.Helper()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	id, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.NewUserClaims(id)
	claims.Expires = time.Now().Add(after).Unix()
	token, err := claims.Encode(o.account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(file, string(text)); err != nil {
		t.Fatal(err)
	}
}

// says waits until a put fails with a text.
func says(t *testing.T, q queue.Queue, want string) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("last: %v", err)
		}
	}()
	eventually(t, "a put says "+want, func() bool {
		_, err = q.Put(ctxOf(t), "x", nil, queue.PutOptions{})
		return errors.Is(err, queue.ErrUnavailable) && strings.Contains(err.Error(), want)
	})
}

// Credentials that expire while they are in use stop the queue, which says so, and
// goes on by itself with those that are put in their place; and so it is with a
// connection that the account may not have.
func TestTurnedAway(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	nd := o.start(t)
	file := filepath.Join(t.TempDir(), "queue.creds")
	o.credentials(t, file, time.Hour)
	log, lines := newLog()
	opts := Options{URL: serversAt(nd.addr), Log: log}.with("creds", file, "replicas", "1")
	closeNow(t, openReady(t, opts)) // the streams are made, which may take a busy machine longer than what follows
	o.credentials(t, file, 8*time.Second)
	q := openReady(t, opts)
	c := consumeTest(t, q, "x")
	mustPut(t, q, "x", "before")
	mustDone(t, mustReceive(t, c, 1)...)
	want := "the credentials in " + file + " have expired: put new ones into that file"
	says(t, q, want)
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the consumer says %v", err)
	}
	time.Sleep(3 * time.Second) // some more tries
	if n := strings.Count(lines.String(), "\n"); n > 4 {
		t.Errorf("%d lines:\n%s", n, lines)
	}
	o.credentials(t, file, time.Hour)
	awaitReady(t, q)
	mustPut(t, q, "x", "after")
	mustDone(t, mustReceive(t, c, 1)...)

	second := openTest(t, opts)
	says(t, second, "maximum account active connections exceeded: raise the connections that the queue's account may have")
	endNow(t, c)
	closeNow(t, q)
	awaitReady(t, second)
	mustPut(t, second, "x", "y")
}

// A password that is none, and an account that may not have what the queue needs.
func TestAdvice(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	for user, want := range map[string]string{
		"nobody": "the server does not take the queue's user, password or token",
		"none":   "enable JetStream for the queue's account",
		"one":    "raise the streams that the queue's account may have: it needs 2",
	} {
		o := ns.options(t)
		o.User, o.Password = user, user
		says(t, openTest(t, o), want)
	}
}
