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
		if err := d.maul(rng); err != nil {
			return err
		}
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
		{"propeller killed", 20, checked(func(life, faults context.Context) error {
			d.kill()
			return again(life, faults, time.Second)
		})},
		{"propeller stopped", 20, checked(func(life, faults context.Context) error {
			d.stop()
			return again(life, faults, time.Second)
		})},
		{"propeller told twice to stop", 3, checked(func(life, faults context.Context) error {
			d.quit(faults, h.upTo(200*time.Millisecond))
			return again(life, faults, time.Second)
		})},
		{"propeller frozen", 8, checked(func(_, faults context.Context) error {
			t := h.upTo(4 * time.Second)
			defer d.at.trouble("propeller frozen for " + t.String())()
			d.p.freeze(faults, t)
			return nil
		})},
		{"reload: app changed, added or removed", 35, checked(func(context.Context, context.Context) error {
			return d.reload(d.now.changed(rng))
		})},
		{"reload: certificate renewed", 10, checked(func(context.Context, context.Context) error {
			topic := pick(rng, apps()...).topic
			if err := d.at.renew(topic); err != nil {
				return err
			}
			return d.reload(d.now, "certificate of "+topic)
		})},
		{"reload: wrong environment, or the right one again", 15, checked(func(context.Context, context.Context) error {
			if _, yes := d.isMisled(); yes {
				return d.right()
			}
			return d.mislead(rng)
		})},
		{"reload: broken file", 10, checked(func(_, faults context.Context) error { return d.reloadBroken(faults) })},
		{"reload: three at once", 5, checked(func(context.Context, context.Context) error {
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
		{"apns killed", 15, func(life, faults context.Context) error {
			a.kill()
			sleep(faults, h.upTo(3*time.Second))
			return a.start(life, "usual")
		}},
		{"apns frozen", 12, func(_, faults context.Context) error {
			t := h.upTo(5 * time.Second)
			a.at.note("apns frozen for %v", t)
			a.p.freeze(faults, t)
			return nil
		}},
		{"apns in a mood", 20, func(life, faults context.Context) error {
			if err := a.tell(life, order{Do: "profile", Profile: moods[rng.IntN(len(moods))]}); err != nil {
				return err
			}
			sleep(faults, h.upTo(6*time.Second))
			return a.tell(life, order{Do: "profile", Profile: "usual"})
		}},
		{"apns does not listen", 6, func(life, faults context.Context) error {
			if err := a.tell(life, order{Do: "deaf"}); err != nil {
				return err
			}
			sleep(faults, h.upTo(3*time.Second))
			return a.tell(life, order{Do: "listen"})
		}},
		{"apns: goaway", 12, give("goaway")},
		{"apns: goaway and close", 8, give("goaway and close")},
		{"apns: reset", 10, give("reset")},
		{"apns: close", 8, give("close")},
		{"apns: garbage", 5, give("garbage")},
		{"apns: one stream", 4, give("one stream")},
		{"apns: no windows", 4, give("no windows")},
		{"apns: stall", 8, give("stall")},
		{"apns: mute", 8, give("mute")},
		// Seldom: the app stays broken for a minute, as it should, unless a
		// reload replaces it.
		{"apns: credential refused", 1, func(life, _ context.Context) error {
			return a.tell(life, order{Do: "refuse", Topic: pick(rng, apps()...).topic, For: h.upTo(3 * time.Second)})
		}},
	}
	return h
}
