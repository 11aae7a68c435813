package config

import (
	"errors"
	"fmt"
	"strings"

	"propeller/internal/neterr"
	"propeller/queue"
)

// maxName leaves room for feedbackSuffix, so that the feedback tube of every name is a tube name.
const maxName = queue.MaxTubeLen - len(feedbackSuffix)

func setName(at *string, text string) error {
	err := queue.CheckTube(text)
	if err == nil && len(text) > maxName {
		err = errors.New("too long")
	}
	if err != nil {
		return neterr.Reworded(fmt.Sprintf("must be letters, digits, '-', '_' and single inner dots, not start with '-', and have at most %d bytes, since tubes are named after it", maxName), err)
	}
	*at = text
	return nil
}

// checkNames demands a topic of each app, derives name and tube from it, and finds what two
// apps claim.
func (p *parser) checkNames(drafts []*draft) {
	for _, d := range drafts {
		p.checkTopic(d)
	}
	p.checkUnique(drafts)
	p.checkAmbiguous(drafts)
	for _, d := range drafts {
		if !d.has("tube") {
			d.Tube = d.Name
		}
	}
}

// checkTopic demands a topic and derives the name from it.
func (p *parser) checkTopic(d *draft) {
	if !d.has("topic") {
		p.wrong(d.at("topic"), errors.New("is missing: give the app's bundle id"))
		d.bad["topic"] = true
	}
	if d.has("name") {
		return
	}
	if len(d.Topic) > maxName {
		p.wrong(d.at("topic"), fmt.Errorf("has more than %d bytes, the most that a name has, and the topic is the default of name: give a name", maxName))
		return
	}
	d.Name = d.Topic
}

// checkUnique finds names and tubes that two apps claim.
func (p *parser) checkUnique(drafts []*draft) {
	names, tubes := map[string]*draft{}, map[string]*draft{}
	for _, d := range drafts {
		if d.Name != "" {
			if first, ok := names[d.Name]; ok {
				p.twice(d, first)
				continue // its tube would only repeat that
			}
			names[d.Name] = d
		}
		tube, at := d.Tube, d.at("tube")
		if tube == "" {
			tube, at = d.Name, d.nameAt()
		}
		if tube == "" {
			continue
		}
		if first, ok := tubes[tube]; ok {
			p.wrong(at, fmt.Errorf("also the tube of %s (line %d): two apps would take each other's jobs", first.path, first.line))
			continue
		}
		tubes[tube] = d
	}
}

// twice says that d has the name of another app.
func (p *parser) twice(d, first *draft) {
	if d.has("name") {
		p.wrong(d.at("name"), fmt.Errorf("also the name of %s (line %d): give each app a name of its own", first.path, first.line))
		return
	}
	p.wrong(d.at("topic"), fmt.Errorf("also the topic of %s (line %d), and a name's default is the topic: give one of the two a name, or remove it", first.path, first.line))
}

// checkAmbiguous finds names that are the topic of other apps only: who said that word could
// mean either.
func (p *parser) checkAmbiguous(drafts []*draft) {
	topics := map[string]*draft{} // the first of each
	for _, d := range drafts {
		if topics[d.Topic] == nil {
			topics[d.Topic] = d
		}
	}
	for _, d := range drafts {
		if d.Name == "" || d.Name == d.Topic {
			continue
		}
		if other := topics[d.Name]; other != nil && other.Name != d.Name { // else checkUnique has said it
			p.wrong(d.at("name"), fmt.Errorf("is the topic of %s (line %d), and this app has another topic: give it another name", other.path, other.line))
		}
	}
}

// nameAt returns where the app's name was given, or the topic that it comes from.
func (d *draft) nameAt() entry {
	if d.has("name") {
		return d.at("name")
	}
	return d.at("topic")
}

// App returns the app of that name.
func (c *Config) App(name string) (*App, error) {
	for i := range c.Apps {
		if c.Apps[i].Name == name {
			return &c.Apps[i], nil
		}
	}
	return nil, fmt.Errorf("app %.60q is not in %s", name, c.File)
}

// AppOf returns the app that a topic stands for: the app of this topic whose name is the topic,
// or else its only app.
func (c *Config) AppOf(topic string) (*App, error) {
	var of []*App
	var names []string
	for i := range c.Apps {
		if a := &c.Apps[i]; a.Topic == topic {
			if a.Name == topic {
				return a, nil
			}
			of, names = append(of, a), append(names, a.Name)
		}
	}
	switch len(of) {
	case 0:
		return nil, fmt.Errorf("topic %.60q is not in %s", topic, c.File)
	case 1:
		return of[0], nil
	}
	return nil, &SeveralError{topic, names}
}

// SeveralError says that a topic stands for none of its apps.
type SeveralError struct {
	Topic string
	Names []string
}

func (e *SeveralError) Error() string {
	return fmt.Sprintf("topic %.60q: several apps have it, so one of them must be named (%s)", e.Topic, strings.Join(e.Names, ", "))
}
