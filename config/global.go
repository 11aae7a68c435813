package config

import (
	"path/filepath"
	"strings"

	"propeller/internal/files"
)

// stateVariable is what systemd sets to the folders of StateDirectory=, joined
// by colons (systemd.exec(5)).
const stateVariable = "STATE_DIRECTORY"

// global sets the fields at the top that l gives, and returns the keys that
// could not be set.
func (p *parser) global(l layer, cfg *Config) (bad map[string]bool) {
	bad = assign(p, l, globalFields(), cfg)
	e, given := l["state_dir"]
	if !given {
		dirs, _ := p.getenv(stateVariable)
		if dir, _, _ := strings.Cut(dirs, ":"); filepath.IsAbs(dir) {
			cfg.StateDir = dir
		} else {
			// Commands reach a queue inside a daemon by the socket only.
			cfg.StateDir = cfg.Queue.Dir
		}
		return bad
	}
	// One that is not there yet is made when it is needed.
	if err := files.Folder(cfg.StateDir); err != nil {
		p.wrong(e, err)
	}
	return bad
}
