package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const shipped = "../propeller.yaml"

// The shipped file runs as it is, on its own, with a credential for nobody.
func TestShippedFileLoads(t *testing.T) {
	t.Parallel()
	cfg, err := Load(shipped, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// .propeller is in .gitignore.
	folder, err := filepath.Abs("../.propeller/queue")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Queue.Dir != folder || cfg.StateDir != folder || len(cfg.Apps) != 1 ||
		cfg.Apps[0].Topic != "com.example.app" || !cfg.Apps[0].Mock() || len(cfg.Apps[0].Warnings) > 0 {
		t.Errorf("got %+v", cfg)
	}
}

// commented is a key that is switched off: "# workers: 1".
var commented = regexp.MustCompile(`^( *)# ( *)((?:- )?[a-z_]+:( .*)?)$`)

// uncomment switches on every key of the shipped file for which keep is true.
func uncomment(t *testing.T, keep func(line string) bool) string {
	t.Helper()
	data, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	known := []string{"defaults"}
	for _, f := range allFields() {
		for _, key := range f.names() {
			known = append(known, strings.Split(key, ".")...)
		}
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		key, _, _ := strings.Cut(strings.TrimLeft(line, " -#"), ":")
		if m := commented.FindStringSubmatch(line); m != nil && slices.Contains(known, key) && keep(line) {
			line = m[1] + m[2] + m[3]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// keysOf adds the dotted keys of a mapping, and of the entries of lists in it.
func keysOf(n *yaml.Node, prefix string, all map[string]bool) {
	switch n.Kind {
	case yaml.DocumentNode, yaml.SequenceNode:
		for _, below := range n.Content {
			keysOf(below, prefix, all)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := prefix + n.Content[i].Value
			all[key] = true
			keysOf(n.Content[i+1], key+".", all)
		}
	}
}

// A key is documented by the shipped file: one with a tag that it lacks is a fault.
func TestShippedFileHasEveryKey(t *testing.T) {
	t.Parallel()
	text := uncomment(t, func(string) bool { return true })
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	have := make(map[string]bool)
	keysOf(&doc, "", have)
	for prefix, fields := range map[string][]field{"": append(configFields[:len(configFields):len(configFields)], field{key: "defaults"}), "apps.": appFields, "http.keys.": keyFields} {
		for _, f := range fields {
			for _, key := range f.names() {
				if !have[prefix+key] {
					t.Errorf("%s lacks %s%s", shipped, prefix, key)
				}
			}
		}
	}
}

// What the shipped file calls a default is one: with all its comments switched
// on, but those that say otherwise, it means the same as without.
func TestShippedFileTellsDefaults(t *testing.T) {
	t.Parallel()
	text := uncomment(t, func(line string) bool {
		return !strings.Contains(line, "default: the topic") && !strings.Contains(line, "default: the name") && !strings.Contains(line, "no default") && !strings.HasPrefix(line, "# queue:")
	})
	if n := strings.Count(text, "\n# ") + strings.Count(text, "   # "); n == 0 || !strings.Contains(text, "\n    in_flight: 500") {
		t.Fatalf("nothing was switched on:\n%s", text)
	}
	got := mustParse(t, text, Options{})
	want := Default()
	want.File = "test.yaml"
	// So that a newcomer needs no server.
	want.Queue, want.StateDir = got.Queue, got.Queue.Dir
	if want.StateDir == "" {
		t.Errorf("queue %v: is no embedded one", got.Queue)
	}
	want.Apps[0].Name, want.Apps[0].Topic, want.Apps[0].Tube, want.Apps[0].Server = "com.example.app", "com.example.app", "com.example.app", "mock"
	want.Log.Pushes = PushesAll // so that a newcomer sees the first push
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("got  %+v\nwant %+v", got, &want)
	}
	if !strings.Contains(text, "# default: "+Default().Queue.String()+"\n") {
		t.Error("the default of queue is another one")
	}
	if !strings.Contains(text, "server: mock                      # default: "+Default().Apps[0].Server) {
		t.Error("the default of server is another one")
	}
	if !strings.Contains(text, "pushes: all                 # default: "+Default().Log.Pushes) {
		t.Error("the default of log.pushes is another one")
	}
}
