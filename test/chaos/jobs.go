package main

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// kind is what a job as a whole is made to become.
type kind uint8

const (
	plain     kind = iota
	delayed        // put with a delay
	timed          // has a ttl: may expire
	dated          // has an expiration: may expire
	misspelt       // an unknown key: is buried
	malformed      // not JSON: is buried
	oversize       // a payload above APNs' 4 KiB: is buried
)

func (k kind) String() string {
	return [...]string{"plain", "delayed", "ttl", "expiration", "unknown key", "not JSON", "too large"}[k]
}

// sound says that jobs of this kind can be pushed.
func (k kind) sound() bool { return k != misspelt && k != malformed && k != oversize }

// mayExpire says that the daemon may drop jobs of this kind unsent.
func (k kind) mayExpire() bool { return k == timed || k == dated }

// fate is what a device token is made to become.
type fate uint8

const (
	good     fate = iota
	dead          // answered 410
	alien         // answered 400 BadDeviceToken
	bad           // answered 400 PayloadEmpty: this push can never work
	reborn        // at times answered with a 410 older than the job's token_since, which means nothing
	deformed      // not hex
	grave         // answered 410, and shared by many jobs of an app
)

func (f fate) String() string {
	return [...]string{"good token", "dead token", "alien token", "bad push", "reborn token", "deformed token", "grave token"}[f]
}

// end is how tokens of this fate end, for the APNs side to know them.
func (f fate) end() string {
	return [...]string{"5afe", "dead", "a11e", "bad0", "4eb0", "zzzz", "7ead"}[f]
}

// arrives says that the device is there to be reached.
func (f fate) arrives() bool { return f == good || f == reborn }

// push is one device token of one job: the unit of the account. Its number is
// the beginning of its token.
type push struct {
	job  uint32 // index in the ledger
	fate fate
}

// job is a job as its producer knows it.
type job struct {
	first  uint32 // number of its first push; the others follow
	count  int    // pushes
	app    int    // index in apps
	kind   kind
	many   bool   // it has a list of tokens
	id     string // the queue's; "" when the put got no answer: it may have been stored or not
	at     time.Time
	stored bool // the queue has said so
}

// Bounds of the ledger's memory, about 100 bytes a job and 8 a push, and of
// the auditor's, a few hundred bytes a push.
const (
	maxJobs   = 5_000_000
	maxPushes = 20_000_000
)

// ledger holds every job that was put.
type ledger struct {
	mu     sync.Mutex
	jobs   []job
	pushes []push    // by number
	due    time.Time // when the last of them is due
}

// add enters a new job with a push for each fate. It reports false when the
// ledger is full.
func (l *ledger) add(app int, k kind, many bool, fates []fate) (i int, first uint32, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.jobs) >= maxJobs || len(l.pushes)+len(fates) > maxPushes {
		return 0, 0, false
	}
	i, first = len(l.jobs), uint32(len(l.pushes))
	l.jobs = append(l.jobs, job{first: first, count: len(fates), app: app, kind: k, many: many, at: time.Now()})
	for _, f := range fates {
		l.pushes = append(l.pushes, push{uint32(i), f})
	}
	return i, first, true
}

// accepted notes that the queue has taken job i, to be served after a delay.
func (l *ledger) accepted(i int, id string, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs[i].id, l.jobs[i].stored = id, true
	if due := time.Now().Add(delay); due.After(l.due) {
		l.due = due
	}
}

// lastDue is when the last accepted job is due.
func (l *ledger) lastDue() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.due
}

// jobOf is the job of push n.
func (l *ledger) jobOf(n uint32) *job { return &l.jobs[l.pushes[n].job] }

// firstGrave is above all numbers: the tokens that jobs share are numbered
// from here on, by app.
const firstGrave = 0xffffff00

// token is the device token of push n.
func token(n uint32, f fate) string { return fmt.Sprintf("%08x%052x%s", n, 0, f.end()) }

// graveToken is the dead token that jobs of an app share.
func graveToken(app int) string { return token(firstGrave+uint32(app), grave) }

// reference is the ref of the job whose first push is n, and how it is read.
func reference(n uint32) string { return fmt.Sprintf("number %d", n) }

func referred(ref string) (uint32, bool) {
	digits, ok := strings.CutPrefix(ref, "number ")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil
}

// apnsID is an apns-id for push n, and how its number is read.
func apnsID(random, n uint32) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", random, n) }

func identified(id string) (uint32, bool) {
	if len(id) != 36 || id[8:24] != "-0000-4000-8000-" {
		return 0, false
	}
	n, err := strconv.ParseUint(id[24:], 16, 32)
	return uint32(n), err == nil
}

// numbered reads the number at the beginning of a token, which may be cut.
func numbered(token string) (uint32, bool) {
	if len(token) < 8 {
		return 0, false
	}
	b, err := hex.DecodeString(token[:8])
	if err != nil {
		return 0, false
	}
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), true
}

// number finds the push that a witness speaks of: by its token, and where jobs
// share that, or it could not be read, by what else was given.
func (l *ledger) number(token, ref, id string) (uint32, bool) {
	n, ok := numbered(token)
	if !ok || n >= firstGrave {
		if n, ok = referred(ref); !ok {
			n, ok = identified(id)
		}
	}
	return n, ok && int(n) < len(l.pushes)
}
