package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"propeller/config"
)

// toOther moves the jobs of one app to another one of the same topic.
func (o *moveFlags) toOther(cmd *cobra.Command) error {
	if o.said() == "" {
		return usageError{errors.New("--to-app: name the app to take the jobs from by --app")}
	}
	cfg, err := config.Load(o.config, config.Options{WithoutCredentials: true})
	if err != nil {
		return err
	}
	from, to, err := o.lanes(cfg)
	if err != nil {
		return err
	}
	if from.Server != to.Server {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: app %s sends to %s, and app %s to %s: device tokens of one environment do not work in another\n", from.Name, from.Server, to.Name, to.Server)
	}
	q, err := openMover(cfg.Queue)
	if err != nil {
		return err
	}
	defer q.Close()
	ctx, stop := untilInterrupted()
	defer stop()
	return newCarrier(cmd, q, q, to.Tube).carry(ctx, moveChoice{tubes: []string{from.Tube}})
}

// lanes are the two apps, checked.
func (o *moveFlags) lanes(cfg *config.Config) (from, to *config.App, err error) {
	if from, err = o.in(cfg); err != nil {
		return nil, nil, err
	}
	if to, err = cfg.App(o.toApp); err != nil {
		return nil, nil, fmt.Errorf("--to-app: %w", err)
	}
	switch {
	case from.Tube == to.Tube:
		return nil, nil, fmt.Errorf("--to-app %q: is the app that the jobs are taken from", o.toApp)
	case from.Topic != to.Topic:
		return nil, nil, fmt.Errorf("--to-app %q: has the topic %s, and %s has %s: a device token is of one topic", o.toApp, to.Topic, from.Name, from.Topic)
	}
	return from, to, nil
}
