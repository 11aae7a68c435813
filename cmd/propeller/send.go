package main

import (
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
	"propeller/queue"
	"propeller/worker"
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
	{"data", "data", "JSON object put beside aps", true},
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
first, as the daemon will: a job that can never work is refused here.`,
	}
	f := cmd.Flags()
	file := f.StringP("config", "c", defaultFile, "configuration `file`, for the queue and the topic's tube")
	urls := f.String("queue", "", "beanstalkd `URL`, instead of the configuration's")
	topic := f.String("topic", "", "`bundle id` of the app (required)")
	tube := f.String("tube", "", "tube `name`, instead of the configuration's")
	whole := f.String("json", "", "read the whole job as JSON from a `file`, or from - (standard input)")
	delay := f.Duration("delay", 0, "not before this `duration` has passed, in whole seconds")
	for _, k := range sendKeys {
		f.String(k.flag, "", k.usage)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *topic == "" {
			return usageError{errors.New("--topic is missing")}
		}
		if *delay < 0 {
			return usageError{fmt.Errorf("--delay %v: is negative", *delay)}
		}
		body, err := jobBody(cmd, *whole)
		if err != nil {
			return err
		}
		if _, err := worker.ParseJob(body, *topic, ""); err != nil {
			return fmt.Errorf("the job would be buried: %w", err)
		}
		where, err := target(*file, f.Changed("config"), *urls, *topic, *tube)
		if err != nil {
			return err
		}
		id, err := put(cmd.Context(), where, body, *delay)
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
			case whole != "":
				bad = usageError{fmt.Errorf("--%s and --json do not go together: put it into the JSON", f.Name)}
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
	urls  []string
	tube  string
	state string // the daemon's state_dir; "" if it has none, or is not known
}

// target finds the queue and the tube: from --queue and --tube, else from the
// configuration, where the topic must be one of its apps.
func target(file string, named bool, urls, topic, tube string) (place, error) {
	if urls != "" {
		if tube == "" {
			tube = topic
		}
		at, err := config.ParseQueue(urls, config.Options{})
		if err != nil {
			return place{}, err
		}
		return place{urls: at, tube: tube}, nil
	}
	if !named && missing(file) {
		return place{}, errors.New("no propeller.yaml in this folder: name the file with -c, or the queue with --queue beanstalk://host:port")
	}
	cfg, err := config.LoadWithoutCredentials(file)
	if err != nil {
		return place{}, err
	}
	if tube != "" {
		return place{cfg.Queue, tube, cfg.StateDir}, nil
	}
	for i := range cfg.Apps {
		if cfg.Apps[i].Topic == topic {
			return place{cfg.Queue, cfg.Apps[i].Tube, cfg.StateDir}, nil
		}
	}
	return place{}, fmt.Errorf("topic %q is not in %s: add the app there, or name the tube with --tube", topic, file)
}

func put(ctx context.Context, p place, body []byte, delay time.Duration) (string, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	q, err := visitQueue(p.urls)
	if err != nil {
		return "", err
	}
	defer q.Close()
	ctx, cancel := context.WithTimeout(ctx, putTime)
	defer cancel()
	id, err := q.Put(ctx, p.tube, body, queue.PutOptions{Delay: delay})
	if errors.Is(err, queue.ErrUnavailable) {
		return "", fmt.Errorf("not put: %w: start the queue server, or name another by --queue", err)
	}
	if err != nil {
		return "", fmt.Errorf("not put: %w", err)
	}
	return id, nil
}
