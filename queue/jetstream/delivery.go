package jetstream

import (
	"fmt"
	"strconv"
	"strings"
)

// delivery is what the address for acknowledging a job tells of it.
type delivery struct {
	seq    uint64 // in the stream: the same at every try
	tries  int    // how often it has been served, this time included
	stored int64  // when the stream got it, Unix nanoseconds
}

// parseDelivery reads the address of a job:
//
//	$JS.ACK.<stream>.<consumer>.<tries>.<seq>.<delivery>.<stored>.<left>
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>.<tries>.<seq>.…
//
// (nats-server ADR-15). The second form has 11 parts or more.
func parseDelivery(reply string) (delivery, error) {
	var parts [13]string
	n := 0
	for part := range strings.SplitSeq(reply, ".") {
		if n == len(parts) {
			break
		}
		parts[n] = part
		n++
	}
	first := 4
	switch {
	case parts[0] != "$JS" || parts[1] != "ACK" || n < 9 || n == 10:
		return delivery{}, fmt.Errorf("%q: not the address of a job", reply)
	case n > 10:
		first = 6
	}
	tries, err := strconv.Atoi(parts[first])
	if err == nil && tries < 1 {
		err = strconv.ErrRange
	}
	if err != nil {
		return delivery{}, fmt.Errorf("%.300q: tries: %w", reply, err)
	}
	seq, err := strconv.ParseUint(parts[first+1], 10, 64)
	if err != nil {
		return delivery{}, fmt.Errorf("%q: sequence: %w", reply, err)
	}
	stored, err := strconv.ParseInt(parts[first+3], 10, 64)
	if err != nil {
		return delivery{}, fmt.Errorf("%q: time: %w", reply, err)
	}
	return delivery{seq: seq, tries: tries, stored: stored}, nil
}
