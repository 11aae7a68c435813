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

// configFlags adds -c to cmd and, with single, for the daemon, --strict and the flags of
// one app without a file. Without single every fault is an error. The function returned
// checks which flags were given; what it returns loads the configuration, again at each
// call.
func configFlags(cmd *cobra.Command, single bool) func() (func() (*config.Config, error), error) {
	file := cmd.Flags().StringP("config", "c", defaultFile, "configuration `file`")
	strict := new(bool)
	if *strict = !single; single {
		strict = cmd.Flags().Bool("strict", false, "refuse a start or reload with a certificate or key that cannot be used")
		for _, f := range config.Flags() {
			cmd.Flags().String(f.Name, "", f.Usage)
			flag := cmd.Flags().Lookup(f.Name)
			flag.Value = described{flag.Value, f.Value}
		}
		cmd.MarkFlagsMutuallyExclusive("config", "topic")
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
	return config.Load(path, config.Options{Lenient: !strict})
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
