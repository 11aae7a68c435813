package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"propeller/config"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "check the configuration and its certificates",
		Long: `check loads the configuration as run does, with every certificate, and prints a
table of the apps and any warnings. If there are faults, it prints all of them
instead and exits with status 1. It makes no connection.`,
	}
	source := configFlags(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load, err := source()
		if err != nil {
			return err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		if err := canMake(cfg.StateDir); err != nil {
			cfg.Warnings = append(cfg.Warnings, fmt.Sprintf("the folder %q cannot be created: %v; propeller status, jobs and send could not reach the daemon", cfg.StateDir, err))
		}
		return printApps(cmd.OutOrStdout(), cfg)
	}
	return cmd
}

// canMake says why the user of this process cannot make the folder dir; nil if it is
// there, or "". Only a try tells.
func canMake(dir string) error {
	if dir == "" {
		return nil
	}
	above := dir
	for _, err := os.Stat(above); err != nil && above != filepath.Dir(above); _, err = os.Stat(above) {
		above = filepath.Dir(above)
	}
	if above == dir {
		return nil
	}
	try, err := os.MkdirTemp(above, ".propeller-check-")
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return errors.Join(err, os.Remove(try))
}

func printApps(out io.Writer, cfg *config.Config) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTOPIC\tSERVER\tTUBE\tWORKERS\tAUTH\tEXPIRES")
	for i := range cfg.Apps {
		a := &cfg.Apps[i]
		auth, expires := "none (mock)", "-"
		if c := a.Certificate; c != nil {
			auth = "certificate " + a.Cert
			expires = c.NotAfter.UTC().Format(time.DateOnly)
		}
		if k := a.SigningKey; k != nil {
			auth = k.String()
		}
		server := a.Server
		if !a.Proxy.IsZero() {
			server += " through " + a.Proxy.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", a.Name, a.Topic, server, a.Tube, a.Workers, auth, expires)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, warning := range cfg.Warnings {
		fmt.Fprintln(out, "warning:", warning)
	}
	for _, a := range cfg.Apps {
		for _, warning := range a.Warnings {
			fmt.Fprintf(out, "warning: %s: %s\n", a.Name, warning)
		}
	}
	_, err := fmt.Fprintln(out, "ok")
	return err
}
