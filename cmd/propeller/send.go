package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"propeller/config"
	"propeller/httpapi"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/supervisor"
	"propeller/worker/job"
)

// sendKeys are the flags of send that become keys of the job; the value goes
// in as a string, or as JSON where raw is set.
var sendKeys = []struct {
	flag, key, usage string
	raw              bool
}{
	{"token", "token", "device token", false},
	{"channel-id", "channel_id", "channel to broadcast to, instead of --token", false},
	{"title", "title", "title of the alert", false},
	{"subtitle", "subtitle", "subtitle of the alert", false},
	{"body", "body", "text of the alert", false},
	{"badge", "badge", "number on the app's icon", false},
	{"sound", "sound", "sound file, or default", false},
	{"category", "category", "category of the app's actions", false},
	{"thread-id", "thread_id", "what the alert is grouped by", false},
	{"data", "data", "JSON object placed beside aps", true},
	{"push-type", "push_type", "apns-push-type; inferred when absent", false},
	{"priority", "priority", "apns-priority: 10, 5 or 1", false},
	{"collapse-id", "collapse_id", "apns-collapse-id", false},
	{"id", "id", "apns-id, a UUID; made from the job when absent", false},
	{"expiration", "expiration", "apns-expiration in Unix seconds; 0: APNs does not store it", false},
	{"ttl", "ttl", "seconds after which the job is dropped unsent", false},
	{"ref", "ref", "your own id, shown in the log", false},
}

// putTime bounds one put: the queue answers in milliseconds or not at all.
const putTime = 10 * time.Second

// maxJobInput bounds what --json reads: beanstalkd's default limit of a job is
// 65,535 bytes, and servers can be set higher.
const maxJobInput = 1 << 20

func newSend() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send",
		Short: "put one push on the queue",
		Long: `send puts one job on the configured queue and prints its id. It checks the job
first, as the daemon will, and refuses a job that can never work or would expire
before it is sent. It reaches a queue inside a running daemon through the socket
in its state_dir.`,
	}
	f := cmd.Flags()
	file := f.StringP("config", "c", defaultFile, "configuration `file`, for the queue and the app's tube")
	urls := f.String("queue", "", "queue `URL`, instead of the configuration's")
	var which appFlags
	which.add(cmd, true, "the app (this or --topic is required)")
	tube := f.String("tube", "", "tube `name`, instead of the configuration's")
	state := f.String("state-dir", "", "state_dir of the daemon that the queue is inside of, a `folder`, instead of the configuration's")
	whole := f.String("json", "", "read the whole job as JSON from a `file`, or from - (standard input)")
	delay := f.Duration("delay", 0, "not before this `duration` has passed, in whole seconds")
	for _, k := range sendKeys {
		f.String(k.flag, "", k.usage)
		cmd.MarkFlagsMutuallyExclusive("json", k.flag)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *delay < 0 {
			return usageError{fmt.Errorf("--delay %v: is negative", *delay)}
		}
		body, err := jobBody(cmd, *whole)
		if err != nil {
			return err
		}
		where, unknown := target(*file, f.Changed("config"), *urls, which, *tube)
		switch job, err := where.app.ParseProduced(body, time.Now(), *delay); {
		case err != nil:
			return fmt.Errorf("the job would be buried or dropped: %w", err)
		case len(job.Malformed) > 0:
			return fmt.Errorf("the job would not reach all its tokens: %w", job.Malformed[0].Err)
		case unknown != nil:
			return unknown
		default:
			for _, warning := range where.app.Warnings(&job) {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			if job.Notification.PushType == "background" && *whole == "" && !f.Changed("push-type") && !f.Changed("data") {
				fmt.Fprintln(cmd.ErrOrStderr(), "no alert: nothing will be shown")
			}
		}
		where.state = cmp.Or(*state, where.state)
		id, err := put(where, body, *delay)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), id)
		return err
	}
	return cmd
}

// jobBody is the job as JSON: from --json, or made of the flags.
func jobBody(cmd *cobra.Command, whole string) ([]byte, error) {
	job := make(map[string]json.RawMessage)
	var bad error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		for _, k := range sendKeys {
			switch {
			case k.flag != f.Name:
			case !k.raw:
				text, _ := json.Marshal(f.Value.String()) // a string always marshals
				job[k.key] = text
			case json.Valid([]byte(f.Value.String())):
				job[k.key] = json.RawMessage(f.Value.String())
			default:
				bad = usageError{fmt.Errorf("--%s: is not JSON", f.Name)}
			}
		}
	})
	switch {
	case bad != nil:
		return nil, bad
	case whole == "":
		return json.Marshal(job)
	}
	in := cmd.InOrStdin()
	if whole != "-" {
		file, err := os.Open(whole)
		if err != nil {
			return nil, fmt.Errorf("--json: %w", err)
		}
		defer file.Close()
		in = file
	}
	body, err := io.ReadAll(io.LimitReader(in, maxJobInput+1))
	if err != nil {
		return nil, fmt.Errorf("--json %q: %w", whole, err)
	}
	if len(body) > maxJobInput {
		return nil, fmt.Errorf("--json %q: larger than %d bytes", whole, maxJobInput)
	}
	return body, nil
}

// place is where an app's jobs are.
type place struct {
	queue queueurl.URL
	name  string // of the app; its topic if that is all that is known
	tube  string
	named bool      // tube was given by hand
	state string    // the daemon's state_dir; "" if it has none, or is not known
	app   job.Rules // what its jobs are judged by
}

// target finds the queue and the tube: from --queue and --tube, else from the
// configuration, which must have the app.
func target(file string, named bool, urls string, which appFlags, tube string) (place, error) {
	said := which.said()
	unknown := place{name: said, tube: cmp.Or(tube, said), named: tube != "", app: job.Rules{Topic: said}}
	if urls != "" {
		at, err := config.ParseQueue(urls, config.Options{})
		if err != nil {
			return unknown, err
		}
		if at.Dir != "" && missing(at.Dir) {
			return unknown, fmt.Errorf("--queue: folder %q: no such folder", at.Dir)
		}
		unknown.queue, unknown.state = at, at.Dir
		return unknown, nil
	}
	if !named && missing(file) {
		return unknown, errors.New("no propeller.yaml in this folder: name the file with -c, or the queue with --queue beanstalk://host:port")
	}
	cfg, err := config.Load(file, config.Options{WithoutCredentials: true})
	if err != nil {
		return unknown, err
	}
	c, err := which.in(cfg)
	switch _, several := errors.AsType[*config.SeveralError](err); {
	case err == nil:
		return place{cfg.Queue, c.Name, cmp.Or(tube, c.Tube), tube != "", cfg.StateDir, supervisor.RulesOf(c)}, nil
	case tube != "":
		unknown.queue, unknown.state = cfg.Queue, cfg.StateDir
		return unknown, nil
	case several:
		return unknown, fmt.Errorf("%w: with --app", err)
	}
	return unknown, fmt.Errorf("%w: add the app there, or name the tube with --tube", err)
}

// put puts a job: through the daemon if the queue is inside it, else on the
// queue itself.
func put(p place, body []byte, delay time.Duration) (id string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), putTime)
	defer cancel()
	daemon, err := dialDaemon(ctx, p)
	switch {
	case err == nil:
		defer daemon.Close()
		id, err = daemon.Put(ctx, body, delay)
	case errors.Is(err, httpapi.ErrNoDaemon):
		id, err = putOnQueue(ctx, p, body, delay)
	}
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, queue.ErrUncertain):
		if errors.Is(err, context.DeadlineExceeded) {
			return "", fmt.Errorf("the queue did not answer in %v: the job may be in it; if you put it again, it may be sent twice", putTime)
		}
		return "", fmt.Errorf("the queue's answer was lost: the job may be in it; if you put it again, it may be sent twice: %w", err)
	case errors.Is(err, queue.ErrUnavailable):
		return "", fmt.Errorf("not put: %w: start the queue server, or name another by --queue", err)
	}
	return "", fmt.Errorf("not put: %w", err)
}

// dialDaemon finds the daemon that the queue is inside of. The error wraps
// httpapi.ErrNoDaemon if there is none, or the queue is elsewhere.
func dialDaemon(ctx context.Context, p place) (*httpapi.Client, error) {
	if p.queue.Dir == "" || p.state == "" {
		return nil, httpapi.ErrNoDaemon
	}
	c, err := httpapi.Dial(ctx, p.state, p.name)
	if err == nil && p.named {
		c.Close()
		return nil, errors.New("the queue is inside a running daemon, which puts jobs in the tubes of its apps only: leave --tube out")
	}
	return c, err
}

func putOnQueue(ctx context.Context, p place, body []byte, delay time.Duration) (string, error) {
	q, err := visitQueue(p.queue, askHolder)
	if err != nil {
		return "", err
	}
	defer q.Close()
	return q.Put(ctx, p.tube, body, queue.PutOptions{Delay: delay})
}
