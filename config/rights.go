package config

import (
	"fmt"
	"strings"

	"propeller/internal/files"
)

// maxNamed bounds the files that a warning names.
const maxNamed = 3

// warnOfRights finds files with secrets that every user of the machine can read.
func (p *parser) warnOfRights(cfg *Config) {
	if p.bare {
		return
	}
	secret := append([]string{cfg.HTTP.TLSKey}, p.secretFiles...)
	for i := range cfg.Apps {
		a := &cfg.Apps[i]
		if a.CertKey != "" {
			secret = append(secret, a.CertKey)
		} else {
			secret = append(secret, a.Cert)
		}
		secret = append(secret, a.Key)
	}
	var open []string
	seen := map[string]bool{"": true}
	for _, path := range secret {
		if !seen[path] && files.ReadableByAll(path) {
			open = append(open, fmt.Sprintf("%.200q", path))
		}
		seen[path] = true
	}
	if len(open) == 0 {
		return
	}
	named := strings.Join(open[:min(len(open), maxNamed)], ", ")
	if more := len(open) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	cfg.Warnings = append(cfg.Warnings, "every user of this machine can read files that hold secrets: "+named+": remove that right: chmod o-r FILE")
}
