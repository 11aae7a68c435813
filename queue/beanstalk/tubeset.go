package beanstalk

import "slices"

// tubeSet is a set of tubes that can be looked at in turn.
type tubeSet struct {
	names []string
	at    map[string]int // index in names
	next  int            // of some
}

func newTubeSet() tubeSet { return tubeSet{at: make(map[string]int)} }

func (s *tubeSet) len() int { return len(s.names) }

func (s *tubeSet) has(tube string) bool {
	_, has := s.at[tube]
	return has
}

// hasName is has without a copy of the name.
func (s *tubeSet) hasName(tube []byte) bool {
	_, has := s.at[string(tube)]
	return has
}

func (s *tubeSet) add(tube string) {
	if !s.has(tube) {
		s.at[tube] = len(s.names)
		s.names = append(s.names, tube)
	}
}

func (s *tubeSet) remove(tube string) {
	i, has := s.at[tube]
	if !has {
		return
	}
	last := len(s.names) - 1
	s.names[i] = s.names[last]
	s.at[s.names[i]] = i
	s.names[last] = ""
	s.names = s.names[:last]
	delete(s.at, tube)
}

// some appends up to n tubes to out: those that follow the ones returned last, round and round.
func (s *tubeSet) some(out []string, n int) []string {
	for range min(n, len(s.names)) {
		if s.next >= len(s.names) {
			s.next = 0
		}
		out = append(out, s.names[s.next])
		s.next++
	}
	return out
}

// newest returns up to n tubes, of those that were added last.
func (s *tubeSet) newest(n int) []string {
	return slices.Clone(s.names[max(0, len(s.names)-n):])
}
