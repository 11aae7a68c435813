// Command propeller delivers push notifications: it takes jobs from a durable
// queue and sends them to Apple Push Notification service. README.md tells how
// to start; every subcommand has a file of its name here.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the program. It returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := newRoot()
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	ran, err := cmd.ExecuteC()
	if err == nil {
		return exitOK
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "propeller: %v (see %s --help)\n", err, ran.CommandPath())
		return exitUsage
	}
	status := exitFailed
	if own, ok := errors.AsType[statusError](err); ok {
		status = own.status
	}
	if err.Error() != "" {
		fmt.Fprintln(stderr, prefixed(err))
	}
	return status
}

// prefixed is err with the program's name in front of its first line, unless
// it begins with a file's name and line, as compilers' errors do.
func prefixed(err error) string {
	text := err.Error()
	if strings.Contains(text, "\n") {
		return text
	}
	return "propeller: " + packages.ReplaceAllString(strings.TrimPrefix(text, "propeller: "), "")
}

// packages are names of the program's parts in errors, which mean nothing to who calls it.
var packages = regexp.MustCompile(`\b(?:supervisor|httpapi|jetstream|beanstalk): `)

// usageError is a fault of the command line itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func newRoot() *cobra.Command {
	root := newRun()
	root.Use = "propeller"
	root.Short = "push notifications from a durable queue to Apple, for many apps"
	root.Long = root.Short + `

propeller takes jobs from a queue, one tube per app, and sends them to Apple
Push Notification service. Without a command it runs the daemon; propeller demo
shows it at work.`
	root.SilenceUsage, root.SilenceErrors = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp(root))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	runCmd := newRun()
	runCmd.Use = "run"
	for _, c := range []*cobra.Command{runCmd, newCheck(), newSend(), newStatus(), newJobs(), newSim(), newBench(), newDemo(), newVersion()} {
		c.Args = noArgs
		root.AddCommand(c)
	}
	root.Args = noArgs
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasSubCommands():
		return usageError{fmt.Errorf("unknown argument %q", args[0])}
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usageError{fmt.Errorf("unknown command %q: did you mean %s?", args[0], near[0])}
	}
	return usageError{fmt.Errorf("unknown command %q", args[0])}
}

// newHelp is cobra's help command, but for what it does with a command that
// there is not: it calls that success.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "help about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("unknown command %q", strings.Join(args, " "))}
			}
			return cmd.Help()
		},
	}
}

// version is set by release builds with -ldflags "-X main.version=…".
var version string

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "propeller %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildVersion is the release's version, else the commit the build was made
// from, else "devel".
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
