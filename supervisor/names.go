package supervisor

import (
	"fmt"
	"slices"
	"strings"
)

// AmbiguousError says that several apps have a topic, and that none of them has it as its
// name.
type AmbiguousError struct {
	Topic string
	Apps  []string // their names, sorted
}

func (e *AmbiguousError) Error() string {
	which := ""
	if len(e.Apps) > 0 {
		which = ": " + strings.Join(e.Apps, ", ")
	}
	return fmt.Sprintf("topic %.60q: several apps have it: name one of them%s", e.Topic, which)
}

// AppOf returns the name of the app that a topic stands for: the app of this topic whose name
// is the topic, or else its only app. Errors: ErrNoApp, *AmbiguousError.
func (s *Supervisor) AppOf(topic string) (name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[topic]; a != nil && a.cfg.Topic == topic {
		return topic, nil
	}
	switch names := s.topics[topic]; len(names) {
	case 0:
		return "", fmt.Errorf("topic %.60q: %w", topic, ErrNoApp)
	case 1:
		return names[0], nil
	default:
		return "", &AmbiguousError{topic, slices.Sorted(slices.Values(names))}
	}
}

// nameTopics notes which apps each topic has. s.mu is held.
func (s *Supervisor) nameTopics() {
	s.topics = make(map[string][]string, len(s.apps))
	for name, a := range s.apps {
		s.topics[a.cfg.Topic] = append(s.topics[a.cfg.Topic], name)
	}
}
