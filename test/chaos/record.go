package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// entry is a line of the stand-in's record: a connection's beginning, a
// request, or a client's breach of HTTP/2.
type entry struct {
	At    time.Time `json:"at"`
	Run   int       `json:"run"`  // the stand-in's process, from 1
	Conn  int       `json:"conn"` // within Run
	Open  bool      `json:"open,omitempty"`
	Topic string    `json:"topic,omitempty"`
	Token string    `json:"token,omitempty"`
	ID    string    `json:"id,omitempty"` // apns-id

	// What was decided before the answer went out.
	Answer    string `json:"answer,omitempty"` // "200", "410 Unregistered", "silence" …
	Status    int    `json:"status,omitempty"`
	Delivered bool   `json:"delivered,omitempty"` // the device has the push, whatever the daemon hears
	Dead      bool   `json:"dead,omitempty"`      // the token must not be used again
	Wrong     bool   `json:"wrong,omitempty"`     // asked of the wrong environment

	Breach string `json:"breach,omitempty"`
}

// recorder appends entries to a file. Each is one write, so that a kill -9
// loses none that was written.
type recorder struct{ out io.Writer }

func (r recorder) add(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = r.out.Write(append(line, '\n'))
	return err
}

// recordName is the stand-in's record.
const recordName = "apns.record"

// maxLine bounds a line of the record and of the daemon's log; a stack trace
// in the log is far below it.
const maxLine = 1 << 20

// eachLine calls f with each line of a file, and its number from 1.
func eachLine(path string, f func(n int, line []byte)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	s.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; s.Scan(); n++ {
		f(n, s.Bytes())
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
