package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The format of bbolt's file, version 2 (go.etcd.io/bbolt, internal/common:
// page.go, meta.go, bucket.go). Numbers are in the machine's byte order.
//
//	page     id u64, flags u16, count u16, overflow u32, then what its flags say
//	meta     magic u32, version u32, page size u32, flags u32, root bucket (page u64, sequence u64),
//	         freelist page u64, end u64 (first page never used), transaction u64, FNV-1a of all before u64
//	branch   count × (pos u32, key length u32, page u64), then the keys
//	leaf     count × (flags u32, pos u32, key length u32, value length u32), then keys and values
//	freelist count × page u64; a count of 65535 stands in front of the pages as u64 instead
//
// pos counts from its element's own beginning. Pages 0 and 1 are metas: the one
// with the later transaction holds. A leaf element with flag 1 is a bucket; its
// value is page u64 and sequence u64, and if the page is 0, a whole page more.

const (
	magicNumber = 0xED0CDAED
	fileVersion = 2

	headerSize     = 16
	metaSize       = 64
	branchElemSize = 16
	leafElemSize   = 16
	bucketSize     = 16

	branchFlag   = 0x01
	leafFlag     = 0x02
	freelistFlag = 0x10
	bucketFlag   = 0x01

	manyIDs = 0xFFFF

	// maxOverflow bounds one page's length, and so the memory that checking
	// takes: the free list of a 1 GB file is 2 MB.
	maxOverflow = 4096

	// maxDepth bounds the levels of the tree: 500,000 entries have four.
	maxDepth = 32
)

var order = binary.NativeEndian

// checkFile says what is wrong with the structure of a database: every page
// reachable once, of the right kind, with what it holds inside it and in order,
// and none of them listed as free. Its error wraps errDamaged.
func checkFile(f io.ReaderAt, size int64) error {
	root, freelist, end, err := readMeta(f)
	if err != nil {
		return err
	}
	if end < 4 || end > uint64(size)/pageSize {
		return fmt.Errorf("%w: %d pages in a file of %d bytes", errDamaged, end, size)
	}
	c := &checker{f: f, seen: make([]bool, end)}
	c.seen[0], c.seen[1] = true, true
	if _, err := c.tree(root, 0); err != nil {
		return err
	}
	return c.freelist(freelist)
}

// readMeta returns what the meta page in force says.
func readMeta(f io.ReaderAt) (root, freelist, end uint64, err error) {
	var best []byte
	for i := range int64(2) {
		b := make([]byte, metaSize)
		if _, err := f.ReadAt(b, i*pageSize+headerSize); err != nil && err != io.EOF {
			return 0, 0, 0, err
		}
		sum := fnv.New64a()
		_, _ = sum.Write(b[:56]) // never fails
		valid := order.Uint32(b) == magicNumber && order.Uint32(b[4:]) == fileVersion &&
			order.Uint32(b[8:]) == pageSize && order.Uint64(b[56:]) == sum.Sum64()
		if valid && (best == nil || order.Uint64(b[48:]) > order.Uint64(best[48:])) {
			best = b
		}
	}
	if best == nil {
		return 0, 0, 0, fmt.Errorf("%w: no valid head", errDamaged)
	}
	return order.Uint64(best[16:]), order.Uint64(best[32:]), order.Uint64(best[40:]), nil
}

type checker struct {
	f    io.ReaderAt
	seen []bool // pages in use
}

// page is one page with its header taken off.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte
}

func (p page) damage(format string, args ...any) error {
	return fmt.Errorf("%w: page %d: %s", errDamaged, p.id, fmt.Sprintf(format, args...))
}

func parsePage(b []byte) page {
	return page{id: order.Uint64(b), flags: order.Uint16(b[8:]), count: int(order.Uint16(b[10:])), data: b[headerSize:]}
}

// read reads a page and marks it as used.
func (c *checker) read(id uint64) (page, error) {
	p := page{id: id}
	end := uint64(len(c.seen))
	if id >= end {
		return p, p.damage("beyond the end, %d", end)
	}
	b := make([]byte, pageSize)
	if _, err := c.f.ReadAt(b, int64(id)*pageSize); err != nil {
		return p, err
	}
	overflow := uint64(order.Uint32(b[12:]))
	if overflow > maxOverflow || id+overflow >= end {
		return p, p.damage("%d more pages", overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if c.seen[i] {
			return p, p.damage("%d is used twice", i)
		}
		c.seen[i] = true
	}
	if overflow > 0 {
		b = append(b, make([]byte, overflow*pageSize)...)
		if _, err := c.f.ReadAt(b, int64(id)*pageSize); err != nil {
			return p, err
		}
	}
	p = parsePage(b)
	if p.id != id {
		return p, p.damage("found where %d should be", id)
	}
	return p, nil
}

// bounds are the first and last key below a page; nil when there are none.
type bounds struct{ first, last []byte }

// tree checks a page and all below it.
func (c *checker) tree(id uint64, depth int) (bounds, error) {
	p, err := c.read(id)
	if err != nil {
		return bounds{}, err
	}
	if depth > maxDepth {
		return bounds{}, p.damage("%d levels deep", depth)
	}
	switch p.flags {
	case branchFlag:
		return c.branch(p, depth)
	case leafFlag:
		return c.leaf(p, depth)
	}
	return bounds{}, p.damage("kind %#x in a tree", p.flags)
}

// branch checks that each key is the first of its page, too. bbolt finds a page
// that it has rewritten by that key in the branch above; not finding it, it
// would leave the old page in the tree, and give it away as free as well.
func (c *checker) branch(p page, depth int) (all bounds, err error) {
	if p.count == 0 {
		return all, p.damage("branch without pages")
	}
	for i := range p.count {
		e, ok := span(p.data, i*branchElemSize, branchElemSize)
		if !ok {
			return all, p.damage("%d elements", p.count)
		}
		key, ok := span(p.data, i*branchElemSize+int(order.Uint32(e)), int(order.Uint32(e[4:])))
		if !ok || (i > 0 && bytes.Compare(all.last, key) >= 0) {
			return all, p.damage("key of element %d", i)
		}
		below, err := c.tree(order.Uint64(e[8:]), depth+1)
		if err != nil {
			return all, err
		}
		if below.first == nil || !bytes.Equal(below.first, key) {
			return all, p.damage("element %d has another key than its page", i)
		}
		if i == 0 {
			all.first = key
		}
		all.last = below.last
	}
	return all, nil
}

func (c *checker) leaf(p page, depth int) (all bounds, err error) {
	for i := range p.count {
		at := i * leafElemSize
		e, ok := span(p.data, at, leafElemSize)
		if !ok {
			return all, p.damage("%d elements", p.count)
		}
		flags, pos, klen, vlen := order.Uint32(e), int(order.Uint32(e[4:])), int(order.Uint32(e[8:])), int(order.Uint32(e[12:]))
		key, ok := span(p.data, at+pos, klen)
		if !ok || (i > 0 && bytes.Compare(all.last, key) >= 0) {
			return all, p.damage("key of element %d", i)
		}
		if i == 0 {
			all.first = key
		}
		all.last = key
		value, ok := span(p.data, at+pos+klen, vlen)
		if !ok {
			return all, p.damage("value of element %d", i)
		}
		switch flags {
		case 0:
		case bucketFlag:
			if err := c.bucket(p, value, depth); err != nil {
				return all, err
			}
		default:
			return all, p.damage("flags %#x of element %d", flags, i)
		}
	}
	return all, nil
}

// bucket checks a bucket, given the value that stands for it in p.
func (c *checker) bucket(p page, value []byte, depth int) error {
	if len(value) < bucketSize {
		return p.damage("bucket of %d bytes", len(value))
	}
	if root := order.Uint64(value); root != 0 {
		_, err := c.tree(root, depth+1)
		return err
	}
	if depth > maxDepth || len(value) < bucketSize+headerSize {
		return p.damage("bucket without pages")
	}
	inline := parsePage(value[bucketSize:])
	if inline.flags != leafFlag {
		return p.damage("kind %#x in a bucket", inline.flags)
	}
	_, err := c.leaf(inline, depth+1)
	return err
}

func (c *checker) freelist(id uint64) error {
	p, err := c.read(id)
	if err != nil {
		return err
	}
	if p.flags != freelistFlag {
		return p.damage("kind %#x, should be the free list", p.flags)
	}
	count, at := uint64(p.count), 0
	if count == manyIDs {
		count, at = order.Uint64(p.data), 8
	}
	if count > uint64(len(p.data)-at)/8 {
		return p.damage("free list of %d", count)
	}
	for ; count > 0; count-- {
		free := order.Uint64(p.data[at:])
		if free >= uint64(len(c.seen)) || c.seen[free] {
			return p.damage("%d is not free", free)
		}
		c.seen[free] = true
		at += 8
	}
	return nil
}

// span returns the n bytes of b from at, if they are all there.
func span(b []byte, at, n int) ([]byte, bool) {
	if at < 0 || n < 0 || at > len(b) || n > len(b)-at {
		return nil, false
	}
	return b[at : at+n], true
}
