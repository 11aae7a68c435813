package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// The database:
//
//	meta
//	└─ schema           → "1"
//	tubes
//	├─ com.example.app
//	│  ├─ entries       time and id → entry: List reads in the order of time
//	│  └─ ids           id → time: an id has one entry at most
//	└─ gone com.example.app    the same, of jobs that are buried no more
//
// Every call is one transaction, and the journal makes one at a time.

var (
	metaName    = []byte("meta")
	schemaName  = []byte("schema")
	schemaNow   = []byte("1")
	tubesName   = []byte("tubes")
	entriesName = []byte("entries")
	idsName     = []byte("ids")
)

// counts are numbers of entries.
type counts struct {
	of    map[string]int // by shelf
	total int
}

func (c *counts) add(shelf string, n int) {
	c.of[shelf] += n
	c.total += n
}

func (c *counts) clone() *counts { return &counts{of: maps.Clone(c.of), total: c.total} }

// largest returns the shelf with the most entries, one of jobs that are gone if
// there is any.
func (c *counts) largest() (shelf string) {
	most, mostGone := -1, false
	for s, n := range c.of {
		gone := strings.HasPrefix(s, gonePrefix) && n > 0
		if (gone && !mostGone) || (gone == mostGone && n > most) {
			shelf, most, mostGone = s, n, gone
		}
	}
	return shelf
}

// tubeBuckets are the two buckets of one shelf.
type tubeBuckets struct{ entries, ids *bbolt.Bucket }

// fill is how full pages of entries are made: most come in the order of time,
// so that none is put in between later.
const fill = 0.9

// bucketsOf returns nil when the shelf has no entries.
func bucketsOf(tx *bbolt.Tx, shelf string) *tubeBuckets {
	b := tx.Bucket(tubesName).Bucket([]byte(shelf))
	if b == nil {
		return nil
	}
	two := &tubeBuckets{entries: b.Bucket(entriesName), ids: b.Bucket(idsName)}
	if two.entries != nil {
		two.entries.FillPercent = fill
	}
	return two
}

func makeBuckets(tx *bbolt.Tx, shelf string) (*tubeBuckets, error) {
	if b := bucketsOf(tx, shelf); b != nil {
		return b, nil
	}
	b, err := tx.Bucket(tubesName).CreateBucket([]byte(shelf))
	if err != nil {
		return nil, err
	}
	if _, err := b.CreateBucket(entriesName); err != nil {
		return nil, err
	}
	if _, err := b.CreateBucket(idsName); err != nil {
		return nil, err
	}
	return bucketsOf(tx, shelf), nil
}

// timeLen is the length of the time in a key.
const timeLen = 8

// keyOf returns the key of the entry of id; nil when there is none.
func (b *tubeBuckets) keyOf(id string) []byte {
	at := b.ids.Get([]byte(id))
	if len(at) != timeLen {
		return nil
	}
	return append(bytes.Clone(at), id...)
}

// get returns the stored entry of id; nil when there is none.
func (b *tubeBuckets) get(id string) []byte {
	key := b.keyOf(id)
	if key == nil {
		return nil
	}
	return b.entries.Get(key)
}

func (b *tubeBuckets) put(e Entry) error {
	v, err := e.encode()
	if err != nil {
		return err
	}
	key := e.key()
	if err := b.ids.Put(key[timeLen:], key[:timeLen]); err != nil {
		return err
	}
	return b.entries.Put(key, v)
}

// remove removes the entry with this key and says whether there was one.
func (b *tubeBuckets) remove(key []byte) (bool, error) {
	if len(key) <= timeLen || b.entries.Get(key) == nil {
		return false, nil
	}
	if id := key[timeLen:]; bytes.Equal(b.ids.Get(id), key[:timeLen]) {
		if err := b.ids.Delete(id); err != nil {
			return false, err
		}
	}
	return true, b.entries.Delete(key)
}

// removeOldest removes the oldest entry.
func (b *tubeBuckets) removeOldest() error {
	key, _ := b.entries.Cursor().First()
	key = bytes.Clone(key)
	if len(key) <= timeLen {
		return fmt.Errorf("%w: key of %d bytes", errDamaged, len(key))
	}
	_, err := b.remove(key)
	return err
}

// What write does with an entry of a job that has one.
type onOld uint8

const (
	replaceOld onOld = iota
	keepOld          // if it is of the same job
)

// write enters a batch, with at most limit entries a shelf.
func (s *store) write(batch []Entry, limit int, old onOld) error {
	counts := s.counts.clone()
	err := s.update(func(tx *bbolt.Tx) error {
		for _, e := range batch {
			if err := write(tx, e, old, counts); err != nil {
				return err
			}
			if err := evict(tx, counts, e.shelf(), limit); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.counts = counts
	}
	return err
}

func write(tx *bbolt.Tx, e Entry, old onOld, counts *counts) error {
	shelf := e.shelf()
	b, err := makeBuckets(tx, shelf)
	if err != nil {
		return err
	}
	if key := b.keyOf(e.ID); key != nil {
		if before, err := decode(b.entries.Get(key)); old == keepOld && err == nil && before.Sum == e.Sum {
			return nil
		}
		had, err := b.remove(key)
		if err != nil {
			return err
		}
		if had {
			counts.add(shelf, -1)
		}
	}
	counts.add(shelf, 1)
	return b.put(e)
}

// evict removes the oldest entries of the shelf that is above its limit, or of
// the largest when all together are above theirs.
func evict(tx *bbolt.Tx, counts *counts, shelf string, limit int) error {
	for counts.of[shelf] > limit || counts.total > totalFactor*limit {
		if counts.of[shelf] <= limit {
			shelf = counts.largest()
		}
		if err := bucketsOf(tx, shelf).removeOldest(); err != nil {
			return err
		}
		counts.add(shelf, -1)
	}
	return nil
}

// cursor is a place in the entries of a shelf. The zero value is the beginning.
type cursor struct {
	after []byte // the key read last
	end   bool   // there are no more
}

// read returns up to n entries from c on, and moves it. Entries that are
// damaged are left out.
func (s *store) read(shelf string, c *cursor, n int) (some []Entry, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c.end = true
		b := bucketsOf(tx, shelf)
		if b == nil {
			return nil
		}
		at := b.entries.Cursor()
		key, v := at.First()
		if c.after != nil {
			key, v = at.Seek(c.after)
			if bytes.Equal(key, c.after) {
				key, v = at.Next()
			}
		}
		for ; key != nil; key, v = at.Next() {
			if n == 0 {
				c.end = false
				return nil
			}
			n--
			c.after = bytes.Clone(key)
			if e, err := decode(v); err == nil {
				some = append(some, e)
			}
		}
		return nil
	})
	return some, err
}

// get returns the entry of one job.
func (s *store) get(tube, id string) (e Entry, ok bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		b := bucketsOf(tx, tube)
		if b == nil {
			return nil
		}
		found, err := decode(b.get(id))
		if err == nil {
			e, ok = found, true
		}
		return nil // a damaged entry is none
	})
	return e, ok, err
}

// forget removes these very entries.
func (s *store) forget(entries []Entry) error {
	counts := s.counts.clone()
	err := s.update(func(tx *bbolt.Tx) error {
		for _, e := range entries {
			if _, err := forget(tx, e, counts); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.counts = counts
	}
	return err
}

func forget(tx *bbolt.Tx, e Entry, counts *counts) (had bool, err error) {
	b := bucketsOf(tx, e.shelf())
	if b == nil {
		return false, nil
	}
	if had, err = b.remove(e.key()); had && err == nil {
		counts.add(e.shelf(), -1)
	}
	return had, err
}

// putAway moves these very entries to the shelf of those whose jobs are gone,
// and throws away what has been there for long.
func (s *store) putAway(entries []Entry, now time.Time, limit int) error {
	counts := s.counts.clone()
	err := s.update(func(tx *bbolt.Tx) error {
		for _, e := range entries {
			had, err := forget(tx, e, counts)
			if err != nil {
				return err
			}
			if !had {
				continue // replaced, because its job was buried again
			}
			e.gone = now
			if err := write(tx, e, replaceOld, counts); err != nil {
				return err
			}
			if err := evict(tx, counts, e.shelf(), limit); err != nil {
				return err
			}
		}
		return expire(tx, goneShelf(entries[0].Tube), now.Add(-keepGone), counts)
	})
	if err == nil {
		s.counts = counts
	}
	return err
}

// expire throws away what came on a shelf before a time.
func expire(tx *bbolt.Tx, shelf string, before time.Time, counts *counts) error {
	b := bucketsOf(tx, shelf)
	if b == nil {
		return nil
	}
	limit := binary.BigEndian.AppendUint64(nil, uint64(before.UnixNano()))
	for {
		key, _ := b.entries.Cursor().First()
		if key == nil || bytes.Compare(key, limit) >= 0 {
			return nil
		}
		if err := b.removeOldest(); err != nil {
			return err
		}
		counts.add(shelf, -1)
	}
}

// prepare makes the buckets of a new database, or checks an old one's version,
// and counts the entries.
func (s *store) prepare() error {
	err := s.update(func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(metaName); meta != nil {
			if v := meta.Get(schemaName); !bytes.Equal(v, schemaNow) {
				return fmt.Errorf("%w: schema %.20q, want %q", errDamaged, v, schemaNow)
			}
			return nil
		}
		if key, _ := tx.Cursor().First(); key != nil {
			return fmt.Errorf("%w: not a journal", errDamaged)
		}
		meta, err := tx.CreateBucket(metaName)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(tubesName); err != nil {
			return err
		}
		return meta.Put(schemaName, schemaNow)
	})
	if err != nil {
		return err
	}
	return s.view(s.count)
}

func (s *store) count(tx *bbolt.Tx) error {
	s.counts = &counts{of: make(map[string]int)}
	tubes := tx.Bucket(tubesName)
	if tubes == nil {
		return fmt.Errorf("%w: no bucket of tubes", errDamaged)
	}
	return tubes.ForEach(func(tube, _ []byte) error {
		b := bucketsOf(tx, string(tube))
		if b == nil || b.entries == nil || b.ids == nil {
			return fmt.Errorf("%w: tube %.40q has no entries", errDamaged, tube)
		}
		return b.entries.ForEach(func(key, v []byte) error {
			if len(key) <= timeLen || v == nil {
				return fmt.Errorf("%w: entry with a key of %d bytes", errDamaged, len(key))
			}
			s.counts.add(string(tube), 1)
			return nil
		})
	})
}
