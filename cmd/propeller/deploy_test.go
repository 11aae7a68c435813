package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The board and the alerts of deploy/.
const (
	boardFile  = "../../deploy/grafana.json"
	alertsFile = "../../deploy/alerts.yaml"
	alertTests = "../../deploy/alerts_test.yaml"
)

// board is what the tests need of a Grafana board.
type board struct {
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ RefID, Expr string }
	}
}

// alertRule is one of alerts.yaml.
type alertRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readBoard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, boardFile), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func readAlerts(t *testing.T) []alertRule {
	t.Helper()
	var f struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(readFile(t, alertsFile), &f); err != nil || len(f.Groups) != 1 {
		t.Fatal(err, len(f.Groups))
	}
	return f.Groups[0].Rules
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// promtool runs Prometheus' own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		path = "../../.tools/promtool"
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s\n(make test-tools gets promtool)", strings.Join(args, " "), err, out)
	}
}

func TestBoard(t *testing.T) {
	t.Parallel()
	b := readBoard(t)
	var names []string
	for _, v := range b.Templating.List {
		names = append(names, v.Name)
	}
	if b.SchemaVersion < 39 || !slices.Equal(names, []string{"datasource", "job", "app"}) {
		t.Errorf("schema %d, variables %q", b.SchemaVersion, names)
	}
	ids := make(map[int]bool)
	var taken [24][500]bool // columns of the grid, and more rows than there are
	for _, p := range b.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: another has the id, or there is no title or no query", p.ID, p.Title)
		}
		ids[p.ID] = true
		refs := make(map[string]bool)
		for _, q := range p.Targets {
			if refs[q.RefID] || q.Expr == "" {
				t.Errorf("panel %q: query %q", p.Title, q.RefID)
			}
			refs[q.RefID] = true
		}
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if taken[x][y] {
					t.Fatalf("panel %q lies over another", p.Title)
				}
				taken[x][y] = true
			}
		}
	}
}

// expressions are those of the board, with its variables filled in, and of the
// alerts, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	fill := strings.NewReplacer("$__rate_interval", "5m", "$app", ".*", "$job", ".*")
	all := make(map[string]string)
	b := readBoard(t)
	for _, p := range b.Panels {
		for _, q := range p.Targets {
			all[fmt.Sprintf("panel %q %s", p.Title, q.RefID)] = fill.Replace(q.Expr)
		}
	}
	for _, v := range b.Templating.List {
		if v.Type == "query" {
			all["variable "+v.Name] = fill.Replace(v.Definition)
		}
	}
	for _, r := range readAlerts(t) {
		all["alert "+r.Alert] = r.Expr
	}
	return all
}

// Prometheus understands each expression of the board. Of the alerts it says so
// below.
func TestBoardExpressions(t *testing.T) {
	t.Parallel()
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for where, expr := range expressions(t) {
		if strings.HasPrefix(where, "panel") {
			rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), expr})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "board", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "board.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

// What a metric is called, in an expression and in the answer of /metrics.
var (
	metricUse    = regexp.MustCompile(`\b((?:propeller|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	metricSample = regexp.MustCompile(`(?m)^([a-z_][a-z0-9_]*)(?:\{(.*)\})? [^ ]+$`)
	labelMatch   = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// series are the values of each label of each metric.
type series map[string]map[string]map[string]bool

func readSeries(text string) series {
	s := make(series)
	for _, m := range metricSample.FindAllStringSubmatch(text, -1) {
		if s[m[1]] == nil {
			s[m[1]] = make(map[string]map[string]bool)
		}
		for _, l := range labelMatch.FindAllStringSubmatch(m[2], -1) {
			if s[m[1]][l[1]] == nil {
				s[m[1]][l[1]] = make(map[string]bool)
			}
			s[m[1]][l[1]][l[3]] = true
		}
	}
	return s
}

// Every metric, label and value that the board and the alerts name is one that a
// daemon exports, and the board has all of the daemon's own.
func TestDeployNamesMetricsThatAreThere(t *testing.T) {
	hook := httptest.NewServer(http.NotFoundHandler()) // takes no record
	t.Cleanup(hook.Close)
	s := newWebSite(t, ", auth_token: first-token")
	s.write("propeller.yaml", "watchdog: 5s\n"+strings.Replace(s.read("propeller.yaml"), "in_flight: 200",
		"in_flight: 200, feedback: {tube: dead, webhook: '"+hook.URL+"', secret: 0123456789abcdef}", 1))
	if status, text := s.ask("first-token", "POST", "/v1/reload", ""); status != 200 {
		t.Fatal(text)
	}
	var text string
	until(t, "the watchdog has asked the queue", func() bool {
		_, text = s.ask("first-token", "GET", "/metrics", "")
		return strings.Contains(text, "propeller_queue_jobs{") && strings.Contains(text, "propeller_feedback_records{")
	})
	there, used := readSeries(text), make(map[string]bool)
	for where, expr := range expressions(t) {
		uses := metricUse.FindAllStringSubmatch(expr, -1)
		if len(uses) == 0 && expr != `up{job="propeller"} == 0` {
			t.Errorf("%s names no metric: %s", where, expr)
		}
		for _, use := range uses {
			labels, ok := there[use[1]]
			if !ok {
				t.Errorf("%s: there is no %s", where, use[1])
			}
			used[use[1]] = true
			for _, m := range labelMatch.FindAllStringSubmatch(use[2], -1) {
				name, op, value := m[1], m[2], m[3]
				switch {
				case name == "job" && op == "=~": // Prometheus' own
				case labels[name] == nil:
					t.Errorf("%s: %s has no label %s", where, use[1], name)
				case (op == "=" || op == "!=") && value != "" && !labels[name][value]:
					t.Errorf("%s: %s{%s} is never %q, but %q", where, use[1], name, value, slices.Sorted(maps.Keys(labels[name])))
				case op == "!~":
					for v := range strings.SplitSeq(value, "|") {
						if !labels[name][v] {
							t.Errorf("%s: %s{%s} is never %q", where, use[1], name, v)
						}
					}
				}
			}
		}
	}
	for name := range there {
		if base := regexp.MustCompile(`_(sum|count)$`).ReplaceAllString(name, "_bucket"); strings.HasPrefix(name, "propeller_") && !used[base] {
			t.Errorf("neither the board nor an alert has %s", name)
		}
	}
	s.daemon.signal(15)
	s.daemon.exit()
}

// What promtool says of the alerts and of their tests; each alert is shown
// firing and not firing.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", alertsFile)
	promtool(t, "test", "rules", alertTests)
	var tests struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(readFile(t, alertTests), &tests); err != nil {
		t.Fatal(err)
	}
	fires, rests := make(map[string]bool), make(map[string]bool)
	for _, x := range tests.Tests {
		for _, a := range x.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				rests[a.Alertname] = true
			}
		}
	}
	for _, r := range readAlerts(t) {
		if !fires[r.Alert] || !rests[r.Alert] {
			t.Errorf("%s: shown firing %v, not firing %v", r.Alert, fires[r.Alert], rests[r.Alert])
		}
	}
}

// docs/operations.md has each alert in its table, with the place of alerts.yaml
// that says what to do, and each such place is there.
func TestAlertsAreDocumented(t *testing.T) {
	t.Parallel()
	docs := string(readFile(t, "../../docs/operations.md"))
	anchors := make(map[string]bool)
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(docs, -1) {
		anchors[anchorOf(h[1])] = true
	}
	for _, r := range readAlerts(t) {
		place, ok := strings.CutPrefix(r.Annotations["runbook"], "docs/operations.md#")
		if !ok || !anchors[place] {
			t.Errorf("%s: runbook %q is not there", r.Alert, r.Annotations["runbook"])
		}
		if row := regexp.MustCompile("(?m)^\\| `" + r.Alert + "` \\| " + r.Labels["severity"] + ` \|.*\]\(#` + place + `\) \|$`); !row.MatchString(docs) {
			t.Errorf("docs/operations.md has no row for %s, %s, #%s", r.Alert, r.Labels["severity"], place)
		}
		if r.Annotations["summary"] == "" || !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s: summary %q, severity %q", r.Alert, r.Annotations["summary"], r.Labels["severity"])
		}
	}
	if rows, rules := strings.Count(docs, "\n| `Propeller"), len(readAlerts(t)); rows != rules {
		t.Errorf("docs/operations.md has %d alerts, there are %d", rows, rules)
	}
}

// anchorOf is the anchor that a heading gets on GitHub.
func anchorOf(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// Prometheus takes the configuration in docs/operations.md.
func TestScrapeConfiguration(t *testing.T) {
	t.Parallel()
	docs := readFile(t, "../../docs/operations.md")
	_, after, ok := bytes.Cut(docs, []byte("```yaml\nrule_files:"))
	block, _, closed := bytes.Cut(after, []byte("```"))
	if !ok || !closed {
		t.Fatal("no configuration that begins with rule_files")
	}
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, append([]byte("rule_files:"), block...), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", "--syntax-only", file)
}
