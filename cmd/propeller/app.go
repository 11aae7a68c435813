package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"propeller/config"
)

// appFlags say which app a command is for: by its name, or by its topic where that says which.
type appFlags struct{ app, topic string }

// add defines the flags. required: one of them must be given.
func (o *appFlags) add(cmd *cobra.Command, required bool, what string) {
	f := cmd.Flags()
	f.StringVar(&o.app, "app", "", "`name` of "+what)
	f.StringVar(&o.topic, "topic", "", "the same by its topic, a `bundle id`, if no other app of it is meant")
	cmd.MarkFlagsMutuallyExclusive("app", "topic")
	if required {
		cmd.MarkFlagsOneRequired("app", "topic")
	}
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for flag, value := range map[string]string{"app": o.app, "topic": o.topic} {
			if f.Changed(flag) && value == "" { // as "$UNSET" is
				return usageError{fmt.Errorf("--%s is empty", flag)}
			}
		}
		if check != nil {
			return check(cmd, args)
		}
		return nil
	}
}

// said is what the command line calls the app; "" for none.
func (o *appFlags) said() string { return cmp.Or(o.app, o.topic) }

// in finds the app in a configuration.
func (o *appFlags) in(cfg *config.Config) (*config.App, error) {
	if o.app != "" {
		return cfg.App(o.app)
	}
	return cfg.AppOf(o.topic)
}

// completeApps offers the shell the names or topics in the configuration file.
func completeApps(of func(*config.App) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
		cfg, err := config.Load(cmd.Flag("config").Value.String(), config.Options{WithoutCredentials: true})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		seen := make(map[string]bool)
		for i := range cfg.Apps {
			if text := of(&cfg.Apps[i]); !seen[text] {
				all, seen[text] = append(all, text), true
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}
