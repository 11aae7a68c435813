package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"propeller/apnsconn"
	"propeller/httpapi/page"
	"propeller/internal/rawjson"
	"propeller/internal/text"
	"propeller/queue"
)

// buriedPage is what the page of an app's buried jobs shows.
type buriedPage struct {
	Topic      string
	Groups     []*buriedGroup // the largest in front
	Jobs       string         // how many
	More       bool           // there are others
	Reading    bool           // not all buried jobs have been read yet
	Incomplete string         // what went wrong with the rest
	Notice     string         // of what has just been done
	Fault      string
}

// buriedGroup are the jobs that were buried for one reason.
type buriedGroup struct {
	Reason string
	Help   string // what it means, if APNs said so
	Jobs   []BuriedJob
}

// ownReason is what in a reason is different for each job: how long it was tried, and how
// many of its tokens were affected.
var ownReason = regexp.MustCompile(` after \S+ and \d+ tr(?:y|ies)|,? after \d+ tr(?:y|ies)| \(and \d+ more of its tokens likewise\)`)

// groupOf is a job's reason without the parts that are specific to this job.
func groupOf(reason string) string {
	if r := ownReason.ReplaceAllString(reason, ""); r != "" {
		return r
	}
	return "unknown"
}

func grouped(jobs []BuriedJob) []*buriedGroup {
	var out []*buriedGroup
	byReason := make(map[string]*buriedGroup)
	for _, j := range jobs {
		reason := groupOf(j.Reason)
		g := byReason[reason]
		if g == nil {
			g = &buriedGroup{Reason: reason, Help: apnsconn.Explain(reason)}
			byReason[reason] = g
			out = append(out, g)
		}
		g.Jobs = append(g.Jobs, j)
	}
	slices.SortStableFunc(out, func(a, b *buriedGroup) int { return len(b.Jobs) - len(a.Jobs) })
	return out
}

// desk answers with what do makes of an app's buried jobs, in turn with others.
func (p *pages) desk(ctx context.Context, w http.ResponseWriter, v *visitor, topic string, do func(ctx context.Context, l Local) (answer, error)) error {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	return p.api.inTurn(ctx, w, v.client, func() (answer, error) {
		jobs, err := p.api.tree.Jobs(topic)
		if err != nil {
			return answer{}, err
		}
		return do(ctx, Local{jobs})
	})
}

func (p *pages) buried(w http.ResponseWriter, r *http.Request, v *visitor) {
	d := buriedPage{Topic: r.PathValue("topic")}
	for _, done := range []string{"kicked", "deleted"} {
		if n, err := strconv.Atoi(r.URL.Query().Get(done)); err == nil && n > 0 {
			d.Notice = text.Plural(n, "job") + " " + done
		}
	}
	p.showBuried(w, r, v, http.StatusOK, d)
}

// showBuried shows the jobs that are buried now, below what d has to say.
func (p *pages) showBuried(w http.ResponseWriter, r *http.Request, v *visitor, status int, d buriedPage) {
	if !v.limit.Allow() {
		p.fault(w, r, v, http.StatusTooManyRequests, v.overRate().Error())
		return
	}
	err := p.desk(r.Context(), w, v, d.Topic, func(ctx context.Context, l Local) (answer, error) {
		list, err := l.List(ctx, Selection{})
		if err != nil {
			return answer{}, err
		}
		d.Groups, d.Jobs, d.More, d.Reading, d.Incomplete = grouped(list.Jobs), text.Plural(len(list.Jobs), "job"), list.More, !list.Complete, list.Incomplete
		return p.render(v, status, "buried", page.View{Title: "Buried jobs of " + d.Topic, Main: d}), nil
	})
	if err != nil {
		p.fault(w, r, v, statusOf(err), err.Error())
	}
}

// settle makes a handler of Local.Kick or Local.Delete. The form says which jobs
// are meant: one by id, those with a reason, or those selected.
func (p *pages) settle(done string, do func(Local, context.Context, Choice) (Settled, error)) func(http.ResponseWriter, *http.Request, *visitor) {
	return func(w http.ResponseWriter, r *http.Request, v *visitor) {
		topic := r.PathValue("topic")
		if !v.limit.Allow() {
			err := v.overRate()
			p.showBuried(w, r, v, statusOf(err), buriedPage{Topic: topic, Fault: err.Error()})
			return
		}
		var s Settled
		err := p.desk(r.Context(), w, v, topic, func(ctx context.Context, l Local) (_ answer, err error) {
			c, err := chosen(r.PostForm)
			if err != nil {
				return answer{}, err
			}
			s, err = do(l, ctx, c)
			if err == nil && s.Jobs == 0 {
				err = fmt.Errorf("reason %.100q: %w", c.group, queue.ErrNotFound)
			}
			return answer{}, err
		})
		if err != nil {
			p.showBuried(w, r, v, statusOf(err), buriedPage{Topic: topic, Fault: err.Error()})
			return
		}
		p.api.audit(r, v.client, "buried jobs "+done, "topic", topic, "jobs", s.Jobs)
		if s.Incomplete != "" {
			p.showBuried(w, r, v, http.StatusOK, buriedPage{Topic: topic, Notice: text.Plural(s.Jobs, "job") + " " + done, Fault: s.Incomplete})
			return
		}
		p.redirect(w, r, fmt.Sprintf("%s/buried?%s=%d", appPath(topic), done, s.Jobs))
	}
}

// chosen are the jobs that a form means.
func chosen(form url.Values) (Choice, error) {
	switch {
	case form.Get("id") != "":
		return Choice{IDs: form["id"][:1]}, nil
	case form.Get("reason") != "": // an empty one would mean all
		return Choice{All: true, group: form.Get("reason")}, nil
	case len(form["ids"]) > 0:
		return Choice{IDs: form["ids"]}, nil
	}
	return Choice{}, fmt.Errorf("%w: no job is selected", errBody)
}

// buriedJobPage is one buried job.
type buriedJobPage struct {
	Topic string
	Job   BuriedJob
	Text  string // the job, without its device tokens
}

// job shows one buried job. With ?part it is only that, for a page that has the
// rest.
func (p *pages) job(w http.ResponseWriter, r *http.Request, v *visitor) {
	topic, id := r.PathValue("topic"), r.PathValue("id")
	err := p.desk(r.Context(), w, v, topic, func(ctx context.Context, l Local) (answer, error) {
		j, err := l.Show(ctx, id)
		if err != nil {
			return answer{}, err
		}
		d := page.View{Title: "A buried job of " + topic, Main: buriedJobPage{topic, j, readable(j.Body, j.BodyBase64)}}
		if !r.URL.Query().Has("part") {
			return p.render(v, http.StatusOK, "job", d), nil
		}
		text, err := page.Fragment("job", "job", d.Main)
		return answerHTML(http.StatusOK, text), err
	})
	if err != nil {
		p.fault(w, r, v, statusOf(err), err.Error())
	}
}

// maxShown bounds the text of a job that is shown, in bytes; the API has the whole job.
const maxShown = 256 << 10

// readable is a job's text for people: indented, with no more of a device token
// than its first 8 characters.
func readable(body string, other []byte) string {
	if body == "" {
		body = strings.ToValidUTF8(string(other), "\uFFFD")
	}
	return text.CutTokens(rawjson.Indent(body, "", maxShown))
}
