package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// simCommand is the first argument of the APNs process; its second is a
// simPlan in JSON.
const simCommand = "apns"

// simPlan is what the APNs process is told at its start.
type simPlan struct {
	Addr, Cert, Key, Record string
	WrongAddr               string // where every device token is of another environment
	Run                     int    // its number, from 1
	Seed                    uint64 // of its dice
	Profile                 string // to begin with; see profiles
	OneStream               bool   // one stream only after an answer 4xx, as seen at APNs
}

// order is a line on the APNs process's input. Each is answered by a line.
type order struct {
	Do      string
	Profile string        `json:",omitempty"`
	Topic   string        `json:",omitempty"`
	For     time.Duration `json:",omitempty"` // of stall, mute and refuse
}

// sim is the inside of the APNs process.
type sim struct {
	srv     *apnstest.Server
	answers *answers
	record  recorder
	run     int
	told    int // breaches recorded
}

// simMain is the APNs process. It ends when its input does.
func simMain(args []string, stdin io.Reader, stdout io.Writer) error {
	var plan simPlan
	if len(args) != 1 {
		return fmt.Errorf("%s: want one argument, a plan", simCommand)
	}
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return fmt.Errorf("%s: plan: %w", simCommand, err)
	}
	cert, err := tls.LoadX509KeyPair(plan.Cert, plan.Key)
	if err != nil {
		return fmt.Errorf("%s: %w", simCommand, err)
	}
	out, err := os.OpenFile(plan.Record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", simCommand, err)
	}
	defer out.Close()
	s := &sim{record: recorder{out}, run: plan.Run}
	s.answers = newAnswers(plan.Seed, plan.Profile, s.leave)
	s.srv, err = apnstest.Start(apnstest.Options{
		Addr: plan.Addr, TLSCert: &cert, Record: -1, Script: s.answers.script,
		DropTo1After4xx: plan.OneStream,
		OnRequest:       s.onRequest, OnConn: s.onConn,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", simCommand, err)
	}
	defer s.srv.Close()
	wrong, err := apnstest.Start(apnstest.Options{
		Addr: plan.WrongAddr, TLSCert: &cert, Record: -1, OnRequest: s.onMisled,
		Script: func(*apnstest.Request) apnstest.Answer { return apnstest.Answer{Reason: "BadDeviceToken"} },
	})
	if err != nil {
		return fmt.Errorf("%s: %w", simCommand, err)
	}
	defer wrong.Close()
	return s.obey(stdin, stdout)
}

// must ends the process: a record with a hole proves nothing.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("chaos: record: %v", err))
	}
}

func (s *sim) onConn(c *apnstest.Conn) {
	must(s.record.add(entry{At: time.Now(), Run: s.run, Conn: c.ID(), Open: true}))
}

// onRequest runs before the answer goes out.
func (s *sim) onRequest(r *apnstest.Request) {
	name, delivered := s.answers.named(r)
	must(s.record.add(entry{
		At: time.Now(), Run: s.run, Conn: r.Conn, Topic: r.Header.Get("apns-topic"), Token: r.Token,
		ID: r.Header.Get("apns-id"), Answer: name, Status: r.Answer.Status, Delivered: delivered, Dead: deadly(name),
	}))
}

// onMisled records a request to the wrong environment.
func (s *sim) onMisled(r *apnstest.Request) {
	must(s.record.add(entry{
		At: time.Now(), Run: s.run, Conn: -r.Conn, Topic: r.Header.Get("apns-topic"), Token: r.Token,
		ID: r.Header.Get("apns-id"), Answer: "wrong environment", Status: r.Answer.Status, Wrong: true,
	}))
}

// leave sends GOAWAY saying that stream and all after it were not processed.
func (s *sim) leave(conn int, stream uint32) {
	s.srv.EachConn(func(c *apnstest.Conn) {
		if c.ID() == conn {
			c.GoAway(max(stream, 2)-2, http2.ErrCodeNo, nil)
		}
	})
}

// obey carries out the orders of stdin.
func (s *sim) obey(stdin io.Reader, stdout io.Writer) error {
	fmt.Fprintln(stdout, "ready")
	in := bufio.NewScanner(stdin)
	for in.Scan() {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return fmt.Errorf("%s: order: %w", simCommand, err)
		}
		if err := s.do(o); err != nil {
			return err
		}
		s.breaches()
		fmt.Fprintln(stdout, "done")
	}
	return in.Err()
}

func (s *sim) do(o order) error {
	switch o.Do {
	case "profile":
		s.answers.set(o.Profile)
	case "goaway":
		s.srv.EachConn(func(c *apnstest.Conn) { c.Shutdown(http2.ErrCodeNo, apnstest.GoAwayReason("Shutdown")) })
	case "goaway and close":
		s.srv.EachConn(func(c *apnstest.Conn) {
			c.Shutdown(http2.ErrCodeNo, nil)
			c.CloseTLS()
		})
	case "nothing":
	case "reset":
		s.srv.EachConn((*apnstest.Conn).CloseAbruptly)
	case "close":
		s.srv.EachConn((*apnstest.Conn).CloseTCP)
	case "garbage":
		s.srv.EachConn(func(c *apnstest.Conn) { c.WriteRaw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) })
	case "one stream":
		s.srv.EachConn(func(c *apnstest.Conn) { c.MaxStreams(1) })
	case "no windows":
		s.srv.EachConn(func(c *apnstest.Conn) { c.WithholdWindowUpdates(true) })
	case "stall":
		s.srv.EachConn(func(c *apnstest.Conn) {
			c.Stall()
			time.AfterFunc(o.For, c.Resume)
		})
	case "mute":
		s.srv.EachConn(func(c *apnstest.Conn) {
			c.Mute()
			time.AfterFunc(o.For, c.Resume)
		})
	case "refuse":
		s.answers.refuse(o.Topic, o.For)
	case "deaf":
		s.srv.StopListening()
	case "listen":
		return s.srv.Resume()
	case "calm":
		s.answers.set("calm")
		s.srv.EachConn(func(c *apnstest.Conn) {
			c.Resume()
			c.MaxStreams(1000)
			c.WithholdWindowUpdates(false)
		})
	default:
		return fmt.Errorf("%s: order %s", simCommand, strconv.Quote(o.Do))
	}
	return nil
}

// breaches records what clients did against HTTP/2 since the last time.
func (s *sim) breaches() {
	all := s.srv.Violations()
	for _, v := range all[min(s.told, len(all)):] {
		must(s.record.add(entry{At: time.Now(), Run: s.run, Breach: v}))
	}
	s.told = len(all)
}
