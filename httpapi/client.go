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
	"net/url"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrNoDaemon: nobody answers on the socket of a state_dir.
var ErrNoDaemon = errors.New("no daemon runs with this state_dir")

// maxAnswer bounds an answer: MaxJobs entries, or one body of the largest job.
const maxAnswer = 8 << 20

// Client speaks to the daemon of one state_dir about one app.
type Client struct {
	http  http.Client
	topic string
}

// Dial returns a client for topic if a daemon answers in dir; else an error
// that wraps ErrNoDaemon, or one that says why it cannot be asked. Close it.
func Dial(ctx context.Context, dir, topic string) (*Client, error) {
	path := filepath.Join(dir, socketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	conn, err := dial(ctx, "", "")
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%q: %w", dir, ErrNoDaemon)
	case err != nil:
		return nil, err
	}
	conn.Close()
	return &Client{topic: topic, http: http.Client{
		Timeout:   writeTime,
		Transport: &http.Transport{DialContext: dial, MaxConnsPerHost: 1},
	}}, nil
}

// Close ends the client's connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// List is Local.List, in the daemon.
func (c *Client) List(ctx context.Context, reason string, limit int) (out BuriedList, err error) {
	q := url.Values{}
	if reason != "" {
		q.Set("reason", reason)
	}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	err = c.do(ctx, http.MethodGet, "/buried?"+q.Encode(), nil, &out)
	return out, err
}

// Show is Local.Show, in the daemon.
func (c *Client) Show(ctx context.Context, id string) (out BuriedJob, err error) {
	err = c.do(ctx, http.MethodGet, "/buried/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Kick is Local.Kick, in the daemon.
func (c *Client) Kick(ctx context.Context, choice Choice) (out Settled, err error) {
	err = c.do(ctx, http.MethodPost, "/buried/kick", choice, &out)
	return out, err
}

// Delete is Local.Delete, in the daemon.
func (c *Client) Delete(ctx context.Context, choice Choice) (out Settled, err error) {
	err = c.do(ctx, http.MethodPost, "/buried/delete", choice, &out)
	return out, err
}

// Put puts a job in the app's tube, to be served after delay, and returns its
// id. The daemon checks it as send does.
func (c *Client) Put(ctx context.Context, job []byte, delay time.Duration) (id string, err error) {
	path := "/jobs"
	if delay > 0 {
		path += "?delay=" + delay.String()
	}
	var out Put
	err = c.do(ctx, http.MethodPost, path, job, &out)
	return out.ID, err
}

// do makes one request below the app; in is nil, or the body, or what is its
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
	// The host is that of no network: the transport knows one way only.
	req, err := http.NewRequestWithContext(ctx, method, "http://propeller/v1/apps/"+url.PathEscape(c.topic)+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
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
