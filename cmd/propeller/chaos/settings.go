package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
)

// configName is the daemon's configuration.
const configName = "propeller.yaml"

// settings are what the hand changes in the daemon's configuration.
type settings struct {
	workers, inFlight map[string]int // by topic
	removed           map[string]bool
}

func usual() settings {
	s := settings{workers: map[string]int{}, inFlight: map[string]int{}, removed: map[string]bool{}}
	for _, a := range apps() {
		s.workers[a.topic], s.inFlight[a.topic] = 2, 100
	}
	return s
}

// changed is s with one thing different.
func (s settings) changed(rng *rand.Rand) (settings, string) {
	s = settings{maps.Clone(s.workers), maps.Clone(s.inFlight), maps.Clone(s.removed)}
	all := apps()
	topic := all[rng.IntN(len(all))].topic
	switch n := rng.IntN(3); {
	case s.removed[topic]:
		delete(s.removed, topic)
		return s, "adds " + topic
	case n == 0:
		s.workers[topic] = 1 + rng.IntN(4)
		return s, fmt.Sprintf("%s workers %d", topic, s.workers[topic])
	case n == 1:
		s.inFlight[topic] = []int{1, 10, 100, 500}[rng.IntN(4)]
		return s, fmt.Sprintf("%s in_flight %d", topic, s.inFlight[topic])
	case len(s.removed) == len(all)-1:
		return s, "nothing"
	}
	s.removed[topic] = true
	return s, "removes " + topic
}

// complete is s with every app.
func (s settings) complete() settings {
	s.removed = map[string]bool{}
	return s
}

// yaml is the configuration file. Times are short, so that a minute holds many
// tries of a job.
func (s settings) yaml(at *site) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `queue: beanstalk://%s
log: {level: debug, format: json, pushes: all}
shutdown_timeout: 5s
defaults:
  server: https://%s
  ca_file: apns.pem
  push_timeout: 2s
  retry: {min: 1s, max: 5s, give_up_after: 24h}
apps:
`, at.queueAddr, at.apnsAddr)
	for _, a := range apps() {
		if !s.removed[a.topic] {
			fmt.Fprintf(&b, "  - {topic: %s, tube: %s, cert: %s.pem, workers: %d, in_flight: %d}\n",
				a.topic, a.tube, a.topic, s.workers[a.topic], s.inFlight[a.topic])
		}
	}
	return []byte(b.String())
}
