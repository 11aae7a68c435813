package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"propeller/config"
)

// defaultFile is the configuration when -c is not given.
const defaultFile = "propeller.yaml"

// oneApp are the flags that describe one app without a file. Each stands for
// the key of the same name in propeller.yaml and has its default and limits.
var oneApp = []struct{ name, value, usage string }{
	{"topic", "BUNDLE-ID", "run one app for this topic, without a file"},
	{"tube", "NAME", "queue tube of its jobs (default the topic)"},
	{"server", "NAME", "production, sandbox, mock or https://host:port"},
	{"cert", "FILE", "certificate, .pem or .p12"},
	{"cert-key", "FILE", "its key, if it is in a file of its own"},
	{"cert-password", "TEXT", "password of the .p12 or the key; others can see it in the process list"},
	{"cert-password-file", "FILE", "the same, read from a file"},
	{"key", "FILE", "key for provider tokens, .p8, instead of a certificate"},
	{"key-id", "ID", "its key id"},
	{"team-id", "ID", "the team id of the account it is from"},
	{"ca-file", "FILE", "roots to trust beside the system's"},
	{"proxy", "URL", "HTTP proxy to APNs, or none (default that of HTTPS_PROXY and NO_PROXY)"},
	{"proxy-file", "FILE", "the same, read from a file, if it holds a password"},
	{"workers", "N", "workers, each with a connection to APNs"},
	{"in-flight", "N", "pushes in flight per worker"},
	{"push-timeout", "DURATION", "from sending a push to APNs' answer"},
	{"retry-min", "DURATION", "first pause after APNs was unavailable"},
	{"retry-max", "DURATION", "longest pause"},
	{"retry-give-up-after", "DURATION", "age at which a job is buried instead of retried"},
	{"expiration", "DURATION", "how long APNs stores pushes of jobs that do not say"},
	{"ttl", "DURATION", "age past which jobs that do not say are not sent"},
	{"extra-keys", "WORD", "what becomes of a job with unknown keys: refuse (default) or ignore"},
	{"feedback-tube", "NAME", "queue tube for records of dead tokens and buried jobs"},
	{"feedback-webhook", "URL", "where to send those records"},
	{"feedback-webhook-file", "FILE", "the same, read from a file, if it holds a secret"},
	{"feedback-secret", "TEXT", "signs what the webhook is sent; others can see it in the process list"},
	{"feedback-secret-file", "FILE", "the same, read from a file"},
	{"feedback-old-secret", "TEXT", "signs beside feedback-secret while that is new"},
	{"feedback-old-secret-file", "FILE", "the same, read from a file"},
	{"queue", "URL[,URL]", "where the jobs are; several of beanstalkd servers"},
	{"log-level", "LEVEL", "debug, info, warn or error"},
	{"log-format", "FORMAT", "text or json"},
	{"log-pushes", "WHICH", "log failures, all or none of the finished pushes"},
	{"shutdown-timeout", "DURATION", "to finish what is in flight at SIGTERM"},
	{"watchdog", "DURATION", "without progress, after which something is done about it"},
	{"http-listen", "HOST:PORT", "serve HTTP there; unix:PATH for a socket"},
	{"http-auth-token", "TEXT", "what HTTP clients must show; others can see it in the process list"},
	{"http-auth-token-file", "FILE", "the same, read from a file"},
	{"http-tls-cert", "FILE", "certificate of the HTTP server, .pem"},
	{"http-tls-key", "FILE", "its key, .pem"},
	{"http-base-path", "PATH", "where a proxy serves the daemon"},
	{"http-hsts", "true", "tell browsers to come by TLS only"},
	{"http-pprof", "true", "serve profiles of the process, for clients that may do everything"},
	{"state-dir", "FOLDER", "for the socket that status, jobs and send use (default STATE_DIRECTORY, or an embedded queue's folder)"},
}

// configFlags adds -c to cmd and, for the daemon, with single, the flags of one app
// without a file and --strict. Without single every fault is an error. The function returned checks which were given; what it returns loads
// the configuration, again at each call.
func configFlags(cmd *cobra.Command, single bool) func() (func() (*config.Config, error), error) {
	file := cmd.Flags().StringP("config", "c", defaultFile, "configuration `file`")
	strict := new(bool)
	if *strict = !single; single {
		strict = cmd.Flags().Bool("strict", false, "refuse a start or reload with a certificate or key that cannot be used")
		for _, f := range oneApp {
			cmd.Flags().String(f.name, "", f.usage)
			flag := cmd.Flags().Lookup(f.name)
			flag.Value = described{flag.Value, f.value}
		}
	}
	return func() (func() (*config.Config, error), error) {
		given := make(map[string]string)
		cmd.Flags().Visit(func(f *pflag.Flag) {
			if f.Name != "config" && f.Name != "strict" {
				given[f.Name] = f.Value.String()
			}
		})
		_, one := given["topic"]
		switch {
		case len(given) == 0:
			return func() (*config.Config, error) { return loadFile(*file, cmd.Flags().Changed("config"), *strict) }, nil
		case !one:
			return nil, usageError{errors.New("flags of an app are for running one without a file: add --topic, or set them in the file")}
		case cmd.Flags().Changed("config"):
			return nil, usageError{errors.New("--config and --topic do not go together: a file holds its own apps")}
		}
		return func() (*config.Config, error) { return config.Single(given, config.Options{Lenient: !*strict}) }, nil
	}
}

// described is a flag's value with a name of its own in the help.
type described struct {
	pflag.Value
	name string
}

func (d described) Type() string { return d.name }

// loadFile loads the configuration; where the default file is missing it says
// what else can be done.
func loadFile(path string, named, strict bool) (*config.Config, error) {
	if !named && missing(path) {
		return nil, errors.New(`no propeller.yaml in this folder: name the file with -c, or run one app with --topic, --server and --cert or --key`)
	}
	if !strict {
		return config.LoadLenient(path)
	}
	return config.Load(path)
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
