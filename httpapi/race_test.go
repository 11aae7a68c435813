//go:build race

package httpapi

// raceSlack is by how much more memory may be measured. The race detector makes
// collections slow, and what is allocated during one counts as reachable.
const raceSlack = 2
