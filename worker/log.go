package worker

import (
	"cmp"
	"context"
	"log/slog"
	"strings"

	"propeller/apnsconn"
)

// pushLevel is the level of the line that each class gets. What is not
// finished and needs nobody's attention is for debugging only: a lost
// connection would otherwise log a line for each push it carried.
var pushLevel = [...]slog.Level{
	apnsconn.Delivered:   slog.LevelInfo,
	apnsconn.Token:       slog.LevelWarn,
	apnsconn.Rejected:    slog.LevelWarn,
	apnsconn.Throttled:   slog.LevelWarn,
	apnsconn.Unavailable: slog.LevelWarn,
	apnsconn.Credential:  slog.LevelDebug,
	apnsconn.NotSent:     slog.LevelDebug,
	apnsconn.Unknown:     slog.LevelWarn,
}

// log writes the line of a push that has ended. attempt is 0 when the queue
// was not asked for it.
func (p *push) log(attempt int) {
	o := &p.outcome
	level := pushLevel[o.Class]
	mode := Pushes(p.t.r.w.cfg.Live.Pushes.Load())
	if mode == LogNone || mode == LogFailures && o.Class == apnsconn.Delivered || !p.t.r.log.Enabled(context.Background(), level) {
		return
	}
	p.t.linePush(p, level, "push", p.attrs(attempt)...)
}

// logsAll says that delivered pushes get a line, too.
func (r *run) logsAll() bool { return Pushes(r.w.cfg.Live.Pushes.Load()) == LogAll }

// attrs are the fields of a push that has ended.
func (p *push) attrs(attempt int) []any {
	o := &p.outcome
	attrs := []any{"class", o.Class.String(), "status", o.Status, "reason", o.Reason, "apns_id", o.APNsID, "ms", p.took.Milliseconds()}
	if attempt > 0 {
		attrs = append(attrs, "attempt", attempt)
	}
	if o.Err != nil {
		attrs = append(attrs, "err", o.Err)
	}
	switch {
	case p.remembered:
		attrs = append(attrs, "remembered", true)
	case o.Class == apnsconn.Token && p.verdict != dead:
		attrs = append(attrs, "believed", false)
	}
	return attrs
}

// line logs what became of a job.
func (t *task) line(level slog.Level, msg string, attrs ...any) {
	t.write(&t.decoded.Notification, level, msg, attrs...)
}

// linePush logs what became of a push.
func (t *task) linePush(p *push, level slog.Level, msg string, attrs ...any) {
	t.write(&p.n, level, msg, attrs...)
}

// write logs a line. Of the token, or the channel's id, it shows the first 8
// characters.
func (t *task) write(n *apnsconn.Notification, level slog.Level, msg string, attrs ...any) {
	attrs = append([]any{"job", t.job.ID(), "token", shortToken(n)}, attrs...)
	if o := t.decoded.origin; o != nil {
		attrs = append(attrs, "first_job", shortJob(o.job))
	}
	if t.decoded.Ref != "" {
		attrs = append(attrs, "ref", t.decoded.Ref)
	}
	t.r.log.Log(context.Background(), level, msg, attrs...)
}

// shortJob is the end of a job's id, with its number. Ids of rest jobs come with
// the job, and are what somebody wrote there; a device token has 64 characters.
func shortJob(id string) string {
	const most = 60
	if len(id) <= most {
		return id
	}
	return "…" + strings.ToValidUTF8(id[len(id)-most:], "")
}

func shortToken(n *apnsconn.Notification) string {
	t := cmp.Or(n.Token, n.ChannelID)
	return t[:min(8, len(t))]
}
