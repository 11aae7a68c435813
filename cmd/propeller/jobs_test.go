package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/httpapi"
	"propeller/internal/text"
	"propeller/queue/jetstream/jetstreamtest"
	"propeller/worker/job"
)

// newBuriedSite is a site with a state_dir, whose daemon has buried three jobs:
// 1 and 2 refused by APNs, 3 broken off. It runs on.
func newBuriedSite(t *testing.T) (*site, *daemonProcess) {
	t.Helper()
	s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 400, Reason: "BadMessageId"})})
	s.stateful()
	for _, job := range []string{`{"token":"` + token(1) + `","title":"x"}`, `{"token":"` + token(2) + `","title":"x","ref":"order 7"}`, `{"token":"` + token(3) + `"`} {
		s.putByHand(topic, job)
	}
	d := startDaemon(t, s.dir)
	until(t, "they are buried", func() bool { return s.buried() == 3 && strings.Count(d.log(), "job buried") == 3 })
	return s, d
}

// stateful gives the site's configuration a state_dir.
func (s *site) stateful() {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "propeller.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("propeller.yaml", "state_dir: state\n"+string(text))
}

// buried counts the buried jobs of all tubes.
func (s *site) buried() (n int) {
	s.t.Helper()
	c := s.bs.Dial()
	defer c.Close()
	stats, err := c.Stats()
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Sscan(stats["current-jobs-buried"], &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// jobs runs propeller jobs, which must succeed and say nothing on the side.
func (s *site) jobs(args ...string) string {
	s.t.Helper()
	r := runProgram(s.t, s.dir, "", append([]string{"jobs"}, args...)...)
	if r.status != 0 || r.err != "" {
		s.t.Fatalf("jobs %q: %+v", args, r)
	}
	return r.out
}

func (s *site) listed(args ...string) (l httpapi.BuriedList) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.jobs(append([]string{"list", "--topic", topic, "--json"}, args...)...)), &l); err != nil {
		s.t.Fatal(err)
	}
	return l
}

// The commands do the same through the running daemon as on the queue of a stopped one.
func TestJobs(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "daemon", false: "queue"}[running], func(t *testing.T) {
			s, d := newBuriedSite(t)
			if !running {
				d.signal(syscall.SIGTERM)
				if status := d.exit(); status != 0 {
					t.Fatalf("status %d", status)
				}
			}
			s.tryJobs()
		})
	}
}

func (s *site) tryJobs() {
	t := s.t
	t.Helper()
	table := s.jobs("list", "--topic", topic)
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "ID  SINCE  CLASS     TOKEN     REASON") {
		t.Fatalf("the list:\n%s", table)
	}
	slices.Sort(lines[1:]) // they are in order of their burial, in which two seconds may meet
	for i, want := range []string{"1 rejected 00000000 400 BadMessageId", "2 rejected 00000000 400 BadMessageId", "3 rejected 00000000 job: not JSON"} {
		got := strings.Fields(lines[i+1])
		got = append(got[:1], got[3:]...) // all but the age
		if !strings.HasPrefix(strings.Join(got, " "), want) || len(lines[i+1]) > 90 {
			t.Errorf("line %q", lines[i+1])
		}
	}
	if l := s.listed("--reason", "badmessage", "--limit", "1"); len(l.Jobs) != 1 || !l.More || l.Jobs[0].Reason != "400 BadMessageId" {
		t.Errorf("%+v", l)
	}
	one := s.jobs("show", "--topic", topic, "--id", "2")
	for _, want := range []string{"job      2\n", "reason   400 BadMessageId\n", "ref      order 7\n", `"token": "00000000…"`} {
		if !strings.Contains(one, want) {
			t.Errorf("show lacks %q:\n%s", want, one)
		}
	}
	if strings.Contains(one, token(2)) {
		t.Error("show shows a whole token")
	}
	if one := s.jobs("show", "--topic", topic, "--id", "2", "--whole"); !strings.Contains(one, token(2)) {
		t.Errorf("show --whole does not show the whole token:\n%s", one)
	}
	r := runProgram(t, s.dir, "", "jobs", "delete", "--topic", topic, "--id", "1", "--id", "4711")
	if r.status != 1 || r.out != "1 job deleted\n" || !strings.Contains(r.err, "4711") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("delete of one that is there and one that is not: %+v", r)
	}
	s.apns.SetScript(nil)
	if out := s.jobs("kick", "--topic", topic, "--reason", "BadMessage"); out != "1 job kicked\n" {
		t.Errorf("kick says %q", out)
	}
	if out := s.jobs("delete", "--topic", topic, "--all", "--json"); !strings.Contains(out, `"jobs": 1`) {
		t.Errorf("delete --all says %q", out)
	}
	if out := s.jobs("list", "--topic", topic); out != "no buried jobs\n" {
		t.Errorf("the list: %q", out)
	}
	if n := s.buried(); n != 0 {
		t.Errorf("%d still buried", n)
	}
}

// A job kicked through the daemon is sent.
func TestKickedJobsAreSent(t *testing.T) {
	s, _ := newBuriedSite(t)
	s.apns.SetScript(nil)
	if out := s.jobs("kick", "--topic", topic, "--all"); !strings.HasPrefix(out, "3 jobs kicked") {
		t.Errorf("kick says %q", out)
	}
	until(t, "two are delivered", func() bool { return s.apns.Count() == 4 })
	until(t, "the third is buried again", func() bool { return s.buried() == 1 })
	until(t, "and listed with its reason", func() bool {
		l := s.listed()
		return len(l.Jobs) == 1 && strings.HasPrefix(l.Jobs[0].Reason, "job: ")
	})
}

// The queue's URL is enough to read the reasons.
func TestJobsByURL(t *testing.T) {
	s, d := newBuriedSite(t)
	d.signal(syscall.SIGTERM)
	d.exit()
	for _, args := range [][]string{{"--topic", topic}, {"--topic", "com.example.other", "--tube", topic}} {
		out := s.jobs(append([]string{"list", "--queue", s.bs.URL(), "--json"}, args...)...)
		if strings.Count(out, "400 BadMessageId") != 2 || strings.Count(out, `"job: `) != 1 || !strings.Contains(out, `"complete": true`) {
			t.Errorf("%q: %s", args, out)
		}
	}
}

// The next daemon and commands without a daemon know why a job was buried, from nothing but the
// queue, whatever kind it is.
func TestReasonsSurviveTheDaemon(t *testing.T) {
	t.Parallel()
	for engine, url := range map[string]func(*site) string{
		"beanstalkd": func(s *site) string { return s.bs.URL() },
		"embedded":   func(s *site) string { return "embedded://./queue" },
		"nats":       func(s *site) string { return jetstreamtest.Start(s.t, 1).URL() },
	} {
		t.Run(engine, func(t *testing.T) {
			s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 400, Reason: "BadMessageId"})})
			s.write("propeller.yaml", "queue: "+url(s)+"\nstate_dir: state\ndefaults: {server: "+s.apns.URL+", ca_file: ca.pem}\n"+
				"apps:\n  - {topic: "+topic+", cert: "+topic+".pem}\n")
			d := startDaemon(t, s.dir)
			until(t, "it answers", func() bool { return runProgram(t, s.dir, "", "status").status == 0 })
			var id string
			for i, more := range [][]string{nil, {"--ref", "r"}} {
				r := runProgram(t, s.dir, "", append([]string{"send", "--topic", topic, "--token", token(i), "--title", "x"}, more...)...)
				if r.status != 0 {
					t.Fatalf("%+v", r)
				}
				id = strings.TrimSpace(r.out)
			}
			check := func(what string) {
				t.Helper()
				l := s.listed()
				if len(l.Jobs) != 2 || !l.Complete || l.Jobs[0].Reason != "400 BadMessageId" || l.Jobs[1].ID != id || l.Jobs[1].Ref != "r" || l.Jobs[1].Status != 400 || l.Jobs[1].APNsID == "" {
					t.Errorf("%s: %+v", what, l)
				}
				if one := s.jobs("show", "--topic", topic, "--id", id); !strings.Contains(one, "400 BadMessageId") || strings.Contains(one, "again") {
					t.Errorf("%s: %s", what, one)
				}
			}
			until(t, "both are buried", func() bool { return strings.Count(d.log(), "job buried") == 2 && len(s.listed().Jobs) == 2 })
			check("the daemon that has buried them")
			d.signal(syscall.SIGTERM)
			if status := d.exit(); status != 0 {
				t.Errorf("status %d", status)
			}
			check("no daemon")
			if err := os.RemoveAll(filepath.Join(s.dir, "state")); err != nil {
				t.Fatal(err)
			}
			d = startDaemon(t, s.dir)
			until(t, "it answers", func() bool { return runProgram(t, s.dir, "", "status").status == 0 })
			check("the next daemon")
			s.apns.SetScript(nil)
			n := s.apns.Count()
			if out := s.jobs("kick", "--topic", topic, "--id", id); out != "1 job kicked\n" {
				t.Errorf("%s", out)
			}
			until(t, "the kicked one is sent", func() bool { return s.apns.Count() == n+1 && len(s.listed().Jobs) == 1 })
		})
	}
}

// A second daemon on the same state_dir does not start, and disturbs nothing.
func TestOneDaemonForAStateDir(t *testing.T) {
	s, d := newBuriedSite(t)
	r := runProgram(t, s.dir, "", "run")
	if r.status != 1 || !strings.Contains(r.err, "propeller: state_dir: \"state\": another propeller is using this folder (process "+fmt.Sprint(d.cmd.Process.Pid)+")") {
		t.Errorf("%+v", r)
	}
	if l := s.listed(); len(l.Jobs) != 3 {
		t.Errorf("%+v", l)
	}
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.ended
	if l := s.listed(); len(l.Jobs) != 3 || !slices.ContainsFunc(l.Jobs, func(j httpapi.BuriedJob) bool { return j.Reason == "400 BadMessageId" }) {
		t.Errorf("after a kill: %+v", l)
	}
	second := startDaemon(t, s.dir)
	second.says("propeller started")
	until(t, "the second daemon answers", func() bool {
		c, err := httpapi.Dial(t.Context(), filepath.Join(s.dir, "state"), topic)
		if err != nil {
			return false
		}
		defer c.Close()
		l, err := c.List(t.Context(), httpapi.Selection{})
		return err == nil && len(l.Jobs) == 3
	})
	s.write("propeller.yaml", strings.Replace(s.read("propeller.yaml"), "state_dir: state", "state_dir: elsewhere", 1))
	second.signal(syscall.SIGHUP)
	second.says("takes effect at the next start")
}

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// Without a usable folder there is no socket, but pushes go on. The file of an earlier version
// is renamed.
func TestDaemonWithoutState(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.stateful()
	s.write("file", "")
	s.write("propeller.yaml", strings.Replace(s.read("propeller.yaml"), "state_dir: state", "state_dir: file/state", 1))
	d := startDaemon(t, s.dir)
	d.says("state_dir cannot be used")
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}

	s.write("propeller.yaml", strings.Replace(s.read("propeller.yaml"), "state_dir: file/state", "state_dir: state", 1))
	if err := os.Mkdir(filepath.Join(s.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write("state/buried.db", "former")
	s.write("state/buried.mark", "")
	d = startDaemon(t, s.dir)
	d.says("the buried.db of an earlier version is not read")
	if got := s.read("state/buried.db.old"); got != "former" || !missing(filepath.Join(s.dir, "state/buried.db")) || !missing(filepath.Join(s.dir, "state/buried.mark")) {
		t.Errorf("%q", got)
	}
	buriedByHand(t, s, `{"token":"`+token(2)+`","title":"x"}`)
	until(t, "another's job is noticed", func() bool { return len(s.listed().Jobs) == 1 })
	if l := s.listed(); !l.Complete || l.Jobs[0].Reason != job.NotRecorded {
		t.Errorf("%+v", l)
	}
}

// buriedByHand buries one of the app's jobs as earlier versions did.
func buriedByHand(t *testing.T, s *site, body string) {
	t.Helper()
	c := s.bs.Dial()
	defer c.Close()
	c.Tube.Name, c.TubeSet.Name = topic, map[string]bool{topic: true}
	id, err := c.Put([]byte(body), 1, time.Hour, time.Minute)
	if err == nil {
		_, err = c.ReserveJob(id)
	}
	if err == nil {
		err = c.Bury(id, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFaultsOfJobs(t *testing.T) {
	t.Parallel()
	s := configured(t)
	tests := []struct {
		args   []string
		status int
		say    string
	}{
		{[]string{}, 2, "list, show, kick, delete or move"},
		{[]string{"frobnicate"}, 2, "frobnicate"},
		{[]string{"list"}, 2, "one of these is required: --app, --topic"},
		{[]string{"list", "extra"}, 2, "extra"},
		{[]string{"list", "--topic", topic, "--limit", "0"}, 2, "--limit 0"},
		{[]string{"list", "--topic", topic, "--limit", "1001"}, 2, "--limit 1001"},
		{[]string{"show", "--topic", topic}, 2, "--id"},
		{[]string{"kick", "--topic", topic}, 2, "--all"},
		{[]string{"delete", "--topic", topic, "--all", "--reason", "x"}, 2, "--all"},
		{[]string{"delete", "--topic", topic, "--whole"}, 2, "--whole"},
		{[]string{"list", "--topic", "com.example.none"}, 1, `"com.example.none"`},
		{[]string{"list", "--topic", topic, "--queue", "beanstalk://127.0.0.1:1"}, 1, "start the queue server"},
		{[]string{"list", "--topic", topic, "-c", "none.yaml"}, 1, "none.yaml"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			r := runProgram(t, s, "", append([]string{"jobs"}, test.args...)...)
			if r.status != test.status || !strings.Contains(r.err, test.say) || strings.Count(r.err, "\n") != 1 {
				t.Errorf("%+v, want status %d and %q", r, test.status, test.say)
			}
		})
	}
}

// configured is a folder with a configuration and nothing behind it.
func configured(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	text := "queue: beanstalk://127.0.0.1:1\napps:\n  - {topic: " + topic + ", server: mock}\n"
	if err := os.WriteFile(filepath.Join(dir, "propeller.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPrintBuried(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	job := func(id string, age time.Duration, class, token, reason string) httpapi.BuriedJob {
		return httpapi.BuriedJob{ID: id, Buried: now.Add(-age), Class: class, Token: token, Reason: reason}
	}
	gone := job("2", 50*time.Hour, "", "", "x")
	gone.Unverified = true
	var b strings.Builder
	err := printBuried(&b, httpapi.BuriedList{More: true, Complete: true, Jobs: []httpapi.BuriedJob{
		job("1", 3*time.Second, "rejected", "00fc13ad", strings.Repeat("long ", 30)), gone,
		job("queue.example.com:11300/123456", 5*time.Hour, "unavailable", "00fc13ad", "503 "+strings.Repeat("y", 40)+"\x1b[31m"),
	}}, now)
	want := `ID                              SINCE  CLASS        TOKEN     REASON
1                               3 s    rejected     00fc13ad  long long long long long long long long…
2                               2 d    ?            -         x
queue.example.com:11300/123456  5 h    unavailable  00fc13ad  503 yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…
3 shown, there are more
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, b.String(), want)
	}
	b.Reset()
	if err := printBuried(&b, httpapi.BuriedList{}, now); err != nil || b.String() != "no buried jobs\nnot all buried jobs have been read from the queue yet; there may be more\n" {
		t.Errorf("%v: %q", err, b.String())
	}
	b.Reset()
	if err := printBuried(&b, httpapi.BuriedList{Complete: true, Jobs: []httpapi.BuriedJob{job("12", time.Minute, "rejected", "00fc13ad", strings.Repeat("é", 100))}}, now); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(line)); n > 81 {
			t.Errorf("%d characters: %q", n, line)
		}
	}
}

// What producers and APNs say never looks like another line.
func TestPrintForgesNoLine(t *testing.T) {
	t.Parallel()
	const forged = "x\nJOB\r\n9  all is well"
	job := httpapi.BuriedJob{ID: forged, Class: forged, Token: forged, Reason: forged, Ref: forged, APNsID: forged, Body: forged}
	var b strings.Builder
	if err := printBuried(&b, httpapi.BuriedList{Complete: true, Jobs: []httpapi.BuriedJob{job}}, time.Now()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
	b.Reset()
	if err := printJob(&b, job, time.Now()); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(b.String()) {
		key, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !slices.Contains([]string{"job", "reason", "class", "buried", "put", "token", "ref", "apns_id", "body", ""}, key) {
			t.Errorf("line %q in\n%s", line, b.String())
		}
	}
}

// However deep and long a job is, what is printed of it is bounded.
func TestPrintedJobIsBounded(t *testing.T) {
	for depth := range map[int]bool{500: true, 9990: true} {
		body := strings.Repeat("[", depth) + strings.Repeat("0,", 500_000) + "0" + strings.Repeat("]", depth)
		var out strings.Builder
		if err := printJob(&out, httpapi.BuriedJob{ID: "1", Body: text.CutTokens(body)}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if n := out.Len(); n > 2*maxShown || !strings.Contains(out.String(), "…") {
			t.Errorf("%d deep: %d bytes", depth, n)
		}
	}
}
