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
	"github.com/spf13/pflag"

	"propeller/config"
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
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	begun := false
	noteStart(root, &begun)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if _, usage := errors.AsType[usageError](err); usage || !begun {
		fmt.Fprintf(stderr, "propeller: %s (see %s --help)\n", flagFault(err), cmd.CommandPath())
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

// noteStart sets begun once the work of any command begins: an error before that is one of
// the command line, which cobra found.
func noteStart(cmd *cobra.Command, begun *bool) {
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			var err error
			cmd.Flags().Visit(func(f *pflag.Flag) { // "$UNSET" counts as given for cobra
				if f.Annotations[cobra.BashCompOneRequiredFlag] != nil && f.Value.String() == "" {
					err = fmt.Errorf("--%s is empty", f.Name)
				}
			})
			if err != nil {
				return err
			}
			*begun = true
			return work(cmd, args)
		}
	}
	for _, below := range cmd.Commands() {
		noteStart(below, begun)
	}
}

// complete has the shell complete --app and --topic of every command that reads a configuration.
func complete(cmd *cobra.Command) {
	for flag, of := range map[string]func(*config.App) string{
		"app": func(a *config.App) string { return a.Name }, "to-app": func(a *config.App) string { return a.Name }, "topic": func(a *config.App) string { return a.Topic },
	} {
		if f := cmd.Flags(); f.Lookup(flag) != nil && f.Lookup("config") != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, completeApps(of)) // fails only for a flag that is not there
		}
	}
	for _, below := range cmd.Commands() {
		complete(below)
	}
}

// What cobra says of flags that are missing or exclude each other. Never written to.
var (
	flagMissing   = regexp.MustCompile(`^required flag\(s\) "([^"]+)".* not set$`)
	flagOneOf     = regexp.MustCompile(`^at least one of the flags in the group \[(.*)\] is required$`)
	flagExclusive = regexp.MustCompile(`^if any flags in the group .* none of the others can be; \[(.*)\] were all set$`)
)

// flagFault is the text of an error of the command line, that of cobra in words like ours.
func flagFault(err error) string {
	text := err.Error()
	list := func(names string) string { return "--" + strings.ReplaceAll(names, " ", ", --") }
	if m := flagMissing.FindStringSubmatch(text); m != nil {
		return "--" + m[1] + " is required"
	}
	if m := flagOneOf.FindStringSubmatch(text); m != nil {
		return "one of these is required: " + list(m[1])
	}
	if m := flagExclusive.FindStringSubmatch(text); m != nil {
		return "only one of these may be given: " + list(m[1])
	}
	return text
}

// require marks a flag as required. That there is no such flag is a mistake in this program.
func require(cmd *cobra.Command, flag string) {
	if err := cmd.MarkFlagRequired(flag); err != nil {
		panic(err)
	}
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

// packages matches package names in errors, which mean nothing to the program's user.
var packages = regexp.MustCompile(`\b(?:supervisor|httpapi|jetstream|beanstalk): `)

// usageError is a fault of the command line that a command found.
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
	root.SetHelpCommand(newHelp(root))
	runCmd := newRun()
	runCmd.Use = "run"
	for _, c := range []*cobra.Command{runCmd, newCheck(), newSend(), newStatus(), newJobs(), newSim(), newBench(), newDemo(), newVersion()} {
		c.Args = noArgs
		root.AddCommand(c)
	}
	root.Args = noArgs
	complete(root)
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasSubCommands():
		return fmt.Errorf("unknown argument %q", args[0])
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q: did you mean %s?", args[0], near[0])
	}
	return fmt.Errorf("unknown command %q", args[0])
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
