package feedback

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"propeller/internal/neterr"
	"propeller/queue"
)

// Bounds of a request.
const (
	// RequestTime bounds a request, from its start to the head of the answer.
	RequestTime = 10 * time.Second
	// The body of an answer is read only so that the connection can be used again: up to
	// maxAnswer bytes, for up to drainTimeout.
	maxAnswer    = 64 << 10
	drainTimeout = time.Second
	// maxAnswerHead bounds the headers of an answer, which are kept in memory.
	maxAnswerHead = 64 << 10

	dialTimeout = 5 * time.Second // leaves time for the request itself
	// idleTimeout is shorter than servers and proxies keep idle connections
	// (60 s and more), so that they are not closed under a request.
	idleTimeout = 30 * time.Second

	maxReason = 200 // bytes of an error's text that are shown
)

// newClient returns the client for the requests, whose contexts bound their time. It follows
// no redirects.
func newClient() *http.Client {
	return &http.Client{
		Transport:     newTransport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// newTransport returns a transport with at most one connection; each new one looks the name up
// again. It speaks HTTP/1.1: one request at a time needs no more, and a request that is given
// up closes its connection.
func newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		MaxConnsPerHost:        1,
		MaxIdleConns:           1,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHead,
		DisableCompression:     true,
		Protocols:              protocols,
	}
}

// proxy is the environment's, without the URL in the error: it may hold a
// password.
func proxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, errors.New("the proxy in HTTP_PROXY or HTTPS_PROXY is not a URL")
	}
	return u, nil
}

// requestBody returns the JSON of a request: the records as they are in the tube.
func requestBody(batch []queue.Job) []byte {
	var b bytes.Buffer
	b.WriteString(`{"records":[`)
	for i, j := range batch {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(j.Body())
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// answer is the result of a request.
type answer struct {
	ok         bool
	tooLarge   bool          // 413
	reason     string        // why it failed; "" if ok
	retryAfter time.Duration // the endpoint asks to wait that long, up to maxPause
}

// post makes one request.
func (w *Webhook) post(ctx context.Context, body []byte) answer {
	ctx, cancel := context.WithTimeout(ctx, RequestTime)
	defer cancel()
	now := time.Now()
	req, err := w.request(ctx, body, now)
	if err != nil {
		return answer{reason: "the URL cannot be used"} // the error quotes it
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.client.CloseIdleConnections() // the next try looks the name up again
		return answer{reason: describe(err)}
	}
	timer := time.AfterFunc(drainTimeout, cancel)
	defer timer.Stop()
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // the head has said all
	return read(resp, now)
}

func (w *Webhook) request(ctx context.Context, body []byte, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	timestamp := strconv.FormatInt(now.Unix(), 10)
	sum := sha256.Sum256(body)
	id := hex.EncodeToString(sum[:16])
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "propeller")
	req.Header.Set(HeaderID, id)
	req.Header.Set(HeaderTimestamp, timestamp)
	req.Header.Set(HeaderSignature, sign(w.cfg.Secrets, id, timestamp, body))
	// An empty one is not sent, but lets net/http repeat the request at once if an idle
	// connection turns out to be closed (see http.Transport).
	req.Header["Idempotency-Key"] = []string{}
	return req, nil
}

// read classifies an answer by its head.
func read(resp *http.Response, now time.Time) answer {
	code := resp.StatusCode
	a := answer{
		ok:         code >= 200 && code <= 299,
		tooLarge:   code == http.StatusRequestEntityTooLarge,
		retryAfter: retryAfter(resp.Header.Get("Retry-After"), now),
	}
	switch {
	case a.ok:
	case code >= 300 && code <= 399:
		a.reason = fmt.Sprintf("answered %d: redirects are not followed", code)
	default:
		a.reason = fmt.Sprintf("answered %d", code)
	}
	return a
}

// retryAfter reads that header (RFC 9110 §10.2.3: seconds or a date). It is
// between 0 and maxPause.
func retryAfter(value string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then seconds is the largest there is
		return time.Duration(min(seconds, uint64(maxPause/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxPause)
	}
	return 0
}

// describe says in few words why there was no answer. It leaves out the URL, and what net/http
// quotes of a malformed answer, which may echo records.
func describe(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %v", RequestTime)
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	text, _, cut := strings.Cut(neterr.Plain(err, "").Error(), `"`)
	if cut {
		text += "…"
	}
	return clip(text, maxReason)
}

// Headers of a webhook request, as Standard Webhooks (standardwebhooks.com) has them.
const (
	// HeaderID is the id of the batch: 32 hex digits, the same whenever the same
	// records are sent again in the same batch.
	HeaderID = "Webhook-Id"
	// HeaderTimestamp is when the request was made, in Unix seconds.
	HeaderTimestamp = "Webhook-Timestamp"
	// HeaderSignature is a signature for each secret, with blanks between them.
	HeaderSignature = "Webhook-Signature"
)

// sign returns the value of HeaderSignature.
func sign(secrets [][]byte, id, timestamp string, body []byte) string {
	var all []string
	for _, secret := range secrets {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(id + "." + timestamp + "."))
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(all, " ")
}
