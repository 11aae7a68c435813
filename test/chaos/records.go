package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// bookName is where the readers of feedback write what they were given.
const bookName = "feedback.record"

// bookEntry is a line of the book: a feedback record as somebody got it.
type bookEntry struct {
	Read   time.Time       `json:"read"`
	Via    string          `json:"via"` // "tube" or "webhook"
	Record json.RawMessage `json:"record"`
}

// feedbackRecord is what docs/feedback.md promises of a record, as far as the
// auditor needs it. It is written down again here on purpose: the daemon's own
// type is part of what is on trial.
type feedbackRecord struct {
	Topic  string    `json:"topic"`
	Token  string    `json:"token"`
	Class  string    `json:"class"`
	Status int       `json:"status"`
	Reason string    `json:"reason"`
	Ref    string    `json:"ref"`
	APNsID string    `json:"apns_id"`
	Job    string    `json:"job"`
	At     time.Time `json:"at"`
}

// book keeps what the readers of feedback were given.
type book struct {
	mu   sync.Mutex
	file *os.File
	err  error // the first failure to write
}

func newBook(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &book{file: f}, err
}

// add enters records. When it returns nil they are safe.
func (b *book) add(via string, records ...json.RawMessage) error {
	var text []byte
	for _, r := range records {
		line, err := json.Marshal(bookEntry{time.Now(), via, r})
		if err != nil {
			return err
		}
		text = append(append(text, line...), '\n')
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.file.Write(text); err != nil && b.err == nil {
		b.err = fmt.Errorf("%s: %w", bookName, err)
	}
	return b.err
}

func (b *book) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.file.Close(); b.err == nil {
		b.err = err
	}
	return b.err
}
