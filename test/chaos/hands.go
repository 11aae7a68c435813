package main

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// longMisled bounds how long an app is in the wrong environment. A push that was
// refused there stays away for worker.DoubtMin, or for as long as the doubt has
// lasted if that is longer, which must be less than the queue is given to run
// empty (drainTime).
const longMisled = 15 * time.Second

// handOnDaemon kills, stops, freezes and reloads propeller.
func handOnDaemon(d *daemon, rng *rand.Rand) *hand {
	h := &hand{rng: rng, mean: 2 * time.Second}
	again := func(life, faults context.Context, pause time.Duration) error {
		sleep(faults, h.upTo(pause))
		return d.start(life)
	}
	checked := func(f func(life, faults context.Context) error) func(context.Context, context.Context) error {
		return func(life, faults context.Context) error {
			if err := d.alive(life); err != nil {
				return err
			}
			if since, yes := d.isMisled(); yes && time.Since(since) > longMisled {
				if err := d.right(); err != nil {
					return err
				}
			}
			return f(life, faults)
		}
	}
	h.acts = []act{
		{name: "propeller killed", weight: 20, do: checked(func(life, faults context.Context) error {
			d.kill()
			return again(life, faults, time.Second)
		})},
		{name: "propeller stopped", weight: 20, do: checked(func(life, faults context.Context) error {
			d.stop()
			return again(life, faults, time.Second)
		})},
		{name: "propeller stopped by two signals", weight: 3, do: checked(func(life, faults context.Context) error {
			d.quit(faults, h.upTo(200*time.Millisecond))
			return again(life, faults, time.Second)
		})},
		{name: "propeller frozen", weight: 8, do: checked(func(_, faults context.Context) error {
			t := h.upTo(4 * time.Second)
			defer d.at.trouble("propeller frozen for " + t.String())()
			d.p.freeze(faults, t)
			return nil
		})},
		{name: "reload: app changed, added or removed", weight: 35, do: checked(func(context.Context, context.Context) error {
			return d.reload(d.now.changed(rng))
		})},
		{name: "reload: certificate renewed", weight: 10, do: checked(func(context.Context, context.Context) error {
			topic := pick(rng, apps()...).topic
			if err := d.at.renew(topic); err != nil {
				return err
			}
			return d.reload(d.now, "certificate of "+topic)
		})},
		{name: "reload: wrong environment, or the right one again", weight: 15, do: checked(func(context.Context, context.Context) error {
			if _, yes := d.isMisled(); yes {
				return d.right()
			}
			return d.mislead(rng)
		})},
		{name: "reload: broken file", weight: 10, do: checked(func(_, faults context.Context) error { return d.reloadBroken(faults) })},
		{name: "reload: three at once", weight: 5, do: checked(func(context.Context, context.Context) error {
			for range 3 {
				if err := d.reload(d.now.changed(rng)); err != nil {
					return err
				}
			}
			return nil
		})},
	}
	return h
}

// handOnAPNs kills, freezes and confuses the APNs side.
func handOnAPNs(a *apns, rng *rand.Rand) *hand {
	h := &hand{rng: rng, mean: 1500 * time.Millisecond}
	moods := slices.Sorted(maps.Keys(profiles))
	give := func(do string) func(context.Context, context.Context) error {
		return func(life, _ context.Context) error { return a.tell(life, order{Do: do, For: h.upTo(4 * time.Second)}) }
	}
	h.acts = []act{
		{name: "apns killed", weight: 15, last: true, do: func(life, faults context.Context) error {
			a.kill()
			sleep(faults, h.upTo(3*time.Second))
			return a.start(life, "usual")
		}},
		{name: "apns frozen", weight: 12, do: func(_, faults context.Context) error {
			t := h.upTo(5 * time.Second)
			a.at.note("apns frozen for %v", t)
			a.p.freeze(faults, t)
			return nil
		}},
		{name: "apns in a mood", weight: 20, do: func(life, faults context.Context) error {
			if err := a.tell(life, order{Do: "profile", Profile: moods[rng.IntN(len(moods))]}); err != nil {
				return err
			}
			sleep(faults, h.upTo(6*time.Second))
			return a.tell(life, order{Do: "profile", Profile: "usual"})
		}},
		{name: "apns does not listen", weight: 6, do: func(life, faults context.Context) error {
			if err := a.tell(life, order{Do: "deaf"}); err != nil {
				return err
			}
			sleep(faults, h.upTo(3*time.Second))
			return a.tell(life, order{Do: "listen"})
		}},
		{name: "apns: all streams refused", weight: 5, last: true, do: func(life, faults context.Context) error {
			if err := a.tell(life, order{Do: "profile", Profile: "closed"}); err != nil {
				return err
			}
			sleep(faults, h.upTo(20*time.Second))
			return a.tell(life, order{Do: "profile", Profile: "usual"})
		}},
		{name: "apns: goaway that covers nothing, then away", weight: 10, last: true, do: func(life, faults context.Context) error { return a.vanish(life, faults, h) }},
		{name: "apns: goaway", weight: 12, do: give("goaway")},
		{name: "apns: goaway and close", weight: 8, do: give("goaway and close")},
		{name: "apns: reset", weight: 10, do: give("reset")},
		{name: "apns: close", weight: 8, do: give("close")},
		{name: "apns: garbage", weight: 5, do: give("garbage")},
		{name: "apns: one stream", weight: 4, do: give("one stream")},
		{name: "apns: no windows", weight: 4, do: give("no windows")},
		{name: "apns: stall", weight: 8, do: give("stall")},
		{name: "apns: mute", weight: 8, do: give("mute")},
		// Seldom: the app stays broken for a minute, as it should, unless a
		// reload replaces it.
		{name: "apns: credential refused", weight: 1, do: func(life, _ context.Context) error {
			return a.tell(life, order{Do: "refuse", Topic: pick(rng, apps()...).topic, For: h.upTo(3 * time.Second)})
		}},
	}
	return h
}

// vanish makes the APNs side send a GOAWAY that covers none of the streams it gets, and then
// stay away: usually for a little over two seconds, sometimes for up to twenty.
func (a *apns) vanish(life, faults context.Context, h *hand) error {
	for _, o := range []order{{Do: "profile", Profile: "leaving"}, {Do: "deaf"}, {Do: pick(h.rng, "close", "reset", "nothing")}} {
		if err := a.tell(life, o); err != nil {
			return err
		}
		sleep(faults, h.upTo(time.Second))
	}
	away := 2*time.Second + h.upTo(pick(h.rng, time.Second, time.Second, 18*time.Second))
	a.at.note("apns away for %v", away)
	sleep(faults, away)
	if err := a.tell(life, order{Do: "listen"}); err != nil {
		return err
	}
	return a.tell(life, order{Do: "profile", Profile: "usual"})
}
