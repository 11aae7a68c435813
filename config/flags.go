package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// flagPath stands in front of every flag's name in a fault.
const flagPath = "--"

// flagName is the flag of a key: "retry.min" → "retry-min".
func flagName(key string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(key)
}

// flags reads the flags of one app. The Config is of use only without faults.
func (p *parser) flags(flags map[string]string) Config {
	cfg := Default()
	rest := maps.Clone(flags)

	if text, ok := rest["queue"]; ok {
		delete(rest, "queue")
		cfg.Queue = p.queueFlag(text)
	}
	global := takeFlags(rest, schemaOf("", globalFields()))
	bad := p.global(global, &cfg)
	app := takeFlags(rest, schemaOf("", appFields()))
	cfg.Apps = p.finish([]*draft{p.draft(app, flagPath, 0)}, &cfg)
	p.checkHTTP(global, bad, &cfg, nil)
	p.warnOfRights(&cfg)

	for _, name := range slices.Sorted(maps.Keys(rest)) {
		p.wrong(entry{key: flagPath + name, flag: true}, errors.New("unknown flag"))
	}
	return cfg
}

// takeFlags moves the flags of a schema's keys into a layer.
func takeFlags(rest map[string]string, s schema) layer {
	l := layer{}
	for _, key := range s.keys {
		name := flagName(key)
		if text, ok := rest[name]; ok {
			delete(rest, name)
			l[key] = entry{text: text, key: flagPath + name, flag: true, secret: slices.Contains(s.secrets, key), cred: ofCredential(key)}
		}
	}
	return l
}

// FlagNames are the names that Single knows, in the order of propeller.yaml.
func FlagNames() []string {
	names := []string{"queue"}
	for _, key := range slices.Concat(schemaOf("", globalFields()).keys, schemaOf("", appFields()).keys) {
		names = append(names, flagName(key))
	}
	return names
}
