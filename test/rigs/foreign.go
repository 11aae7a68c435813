package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue/queueurl"
)

// foreign is a producer that knows nothing of propeller: it puts jobs as docs/queues.md tells
// other programs to.
type foreign interface {
	// put puts jobs, all on their way at once, and waits until the queue has them.
	put(ctx context.Context, jobs []foreignJob) error
	close()
}

type foreignJob struct {
	tube string
	body []byte
}

// foreignTime bounds a producer's wait for the queue.
const foreignTime = 30 * time.Second

// beanstalkClient speaks beanstalkd's protocol.
type beanstalkClient struct {
	nc net.Conn
	in *bufio.Reader
}

func dialBeanstalk(addr string) (foreign, error) {
	nc, err := net.DialTimeout("tcp", addr, foreignTime)
	if err != nil {
		return nil, err
	}
	return &beanstalkClient{nc, bufio.NewReader(nc)}, nil
}

func (c *beanstalkClient) close() { _ = c.nc.Close() } // nothing waits to be written

func (c *beanstalkClient) put(_ context.Context, jobs []foreignJob) error {
	if err := c.nc.SetDeadline(time.Now().Add(foreignTime)); err != nil {
		return err
	}
	var out []byte
	for _, j := range jobs {
		out = fmt.Appendf(out, "use %s\r\nput 1024 0 60 %d\r\n%s\r\n", j.tube, len(j.body), j.body)
	}
	if _, err := c.nc.Write(out); err != nil {
		return err
	}
	for range jobs {
		for _, want := range []string{"USING ", "INSERTED "} {
			line, err := c.in.ReadString('\n')
			if err != nil {
				return err
			}
			if !strings.HasPrefix(line, want) {
				return fmt.Errorf("beanstalkd answers %.100q, not %s", line, want)
			}
		}
	}
	return nil
}

// natsProducer publishes to the subjects of tubes.
type natsProducer struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func dialNATS(text string) (foreign, error) {
	u, err := queueurl.Parse(text, queueurl.Files{})
	if err != nil {
		return nil, err
	}
	return newNATSProducer("nats://" + strings.Join(u.Servers, ","))
}

// dialEmbedded reaches the listener of a daemon's own queue.
func dialEmbedded(addr, tokenFile string) (foreign, error) {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	return newNATSProducer("nats://"+addr, nats.Token(strings.TrimSpace(string(token))))
}

func newNATSProducer(url string, o ...nats.Option) (foreign, error) {
	nc, err := nats.Connect(url, o...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &natsProducer{nc, js}, nil
}

func (p *natsProducer) close() { p.nc.Close() }

func (p *natsProducer) put(ctx context.Context, jobs []foreignJob) error {
	ctx, cancel := context.WithTimeout(ctx, foreignTime)
	defer cancel()
	answers := make([]jetstream.PubAckFuture, len(jobs))
	for i, j := range jobs {
		var err error
		if answers[i], err = p.js.PublishAsync("propeller.job."+j.tube, j.body); err != nil {
			return err
		}
	}
	for _, a := range answers {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
