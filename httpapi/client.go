package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"propeller/queue"
)

// ErrNoDaemon: no daemon listens on the socket of a state_dir.
var ErrNoDaemon = errors.New("no running daemon found")

// maxAnswer bounds an answer: MaxJobs entries, or one body of the largest job.
const maxAnswer = 8 << 20

// Client speaks to a daemon: about one app by its state_dir (Dial), or about all.
type Client struct {
	http http.Client
	base string // of the URLs
	key  string // shown with each request; "" none
	dir  string // state_dir, if it is that of a ForState
	name string // of the app; "" all apps
}

// Dial returns a client for the app of that name if a daemon answers in dir; else an error
// that wraps ErrNoDaemon, or one that says why it cannot be asked. Close it.
func Dial(ctx context.Context, dir, name string) (*Client, error) {
	c := onSocket(filepath.Join(dir, socketName))
	c.name = name
	conn, err := c.http.Transport.(*http.Transport).DialContext(ctx, "", "")
	if err != nil {
		return nil, noDaemon(dir, err)
	}
	conn.Close()
	return c, nil
}

// ForState returns a client for all apps of the daemon whose state_dir is dir. Requests
// fail with ErrNoDaemon while no daemon runs there. Close it.
func ForState(dir string) *Client {
	c := onSocket(filepath.Join(dir, socketName))
	c.dir = dir
	return c
}

// ForURL returns a client for all apps of the daemon at a URL, to which it shows
// key, if there is one: http:// or https:// with the daemon's base path, or unix:
// and the path of a socket. Close it.
func ForURL(at, key string) (*Client, error) {
	if path, ok := strings.CutPrefix(at, "unix:"); ok && path != "" {
		c := onSocket(path)
		c.key = key
		return c, nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("httpapi: the daemon's URL: must be http://host:port, https://host:port or unix:/path, without user and password")
	}
	return &Client{
		base: u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), key: key,
		http: http.Client{Timeout: writeTime, Transport: &http.Transport{
			MaxConnsPerHost: 1, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		}},
	}, nil
}

// noDaemon turns the error of a socket without a listener into ErrNoDaemon.
func noDaemon(dir string, err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w in %q", ErrNoDaemon, dir)
	}
	return err
}

// onSocket makes a client of a Unix socket.
func onSocket(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	// The host is that of no network: the transport knows one way only.
	return &Client{base: "http://propeller", http: http.Client{
		Timeout:   writeTime,
		Transport: &http.Transport{DialContext: dial, MaxConnsPerHost: 1},
	}}
}

// Close ends the client's connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Apps tells of all apps that the client's key is for.
func (c *Client) Apps(ctx context.Context) (out Apps, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/apps", nil, &out)
	return out, err
}

// App tells of one app.
func (c *Client) App(ctx context.Context, name string) (out App, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/apps/"+url.PathEscape(name), nil, &out)
	return out, err
}

// List is Local.List, in the daemon.
func (c *Client) List(ctx context.Context, s Selection) (out BuriedList, err error) {
	q := url.Values{}
	if s.Reason != "" {
		q.Set("reason", s.Reason)
	}
	if s.Limit != 0 {
		q.Set("limit", strconv.Itoa(s.Limit))
	}
	if s.Since != 0 {
		q.Set("since", strconv.FormatInt(s.Since, 10))
	}
	err = c.do(ctx, http.MethodGet, c.app()+"/buried?"+q.Encode(), nil, &out)
	return out, err
}

// Show is Local.Show, in the daemon.
func (c *Client) Show(ctx context.Context, id string) (out BuriedJob, err error) {
	err = c.do(ctx, http.MethodGet, c.app()+"/buried/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Kick is Local.Kick, in the daemon.
func (c *Client) Kick(ctx context.Context, choice Choice) (out Settled, err error) {
	err = c.do(ctx, http.MethodPost, c.app()+"/buried/kick", choice, &out)
	return out, err
}

// Delete is Local.Delete, in the daemon.
func (c *Client) Delete(ctx context.Context, choice Choice) (out Settled, err error) {
	err = c.do(ctx, http.MethodPost, c.app()+"/buried/delete", choice, &out)
	return out, err
}

// Put puts a job in the app's tube, to be served after delay, and returns its
// id. The daemon checks it as send does. The error wraps queue.ErrUncertain if
// the job may have been put all the same.
func (c *Client) Put(ctx context.Context, job []byte, delay time.Duration) (id string, err error) {
	path := c.app() + "/jobs"
	if delay > 0 {
		path += "?delay=" + delay.String()
	}
	var out putAnswer
	var reached atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }})
	err = c.do(ctx, http.MethodPost, path, job, &out)
	if _, answered := errors.AsType[*Problem](err); err != nil && reached.Load() && !answered {
		err = fmt.Errorf("%w: %w", queue.ErrUncertain, err)
	}
	return out.ID, err
}

// app is the path of the client's app.
func (c *Client) app() string { return "/v1/apps/" + url.PathEscape(c.name) }

// aliveTime is how long a daemon may take to say that it is alive. What it is asked for
// may take longer.
const aliveTime = 5 * time.Second

// errFrozen: the daemon takes connections, or rather its system does, and says nothing.
var errFrozen = fmt.Errorf("it does not answer within %v, although something is listening: the process is stopped, or its machine is overloaded", aliveTime)

// alive asks whether the daemon answers at all. What Put traces is not this request.
func (c *Client) alive(ctx context.Context) error {
	within, cancel := context.WithTimeoutCause(context.Background(), aliveTime, errFrozen)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	req, err := http.NewRequestWithContext(within, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		_ = resp.Body.Close()
	case c.dir != "":
		err = noDaemon(c.dir, err)
	}
	if within.Err() != nil && ctx.Err() == nil {
		return errFrozen
	}
	return err
}

// do makes one request; in is nil, or the body, or what is its
// JSON. An answer that is a problem is a *Problem as error.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(in)
	default:
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if err := c.alive(ctx); err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking the daemon: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		p := &Problem{Status: resp.StatusCode}
		if json.Unmarshal(text, p) != nil || p.Detail == "" {
			p.Detail = "the daemon answers " + resp.Status
		}
		return p
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the daemon's answer: %w", err)
	}
	return nil
}
