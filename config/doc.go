// Package config turns propeller.yaml, or the flags of one app, into a Config
// that is complete and checked: defaults filled in, environment variables and
// secret files read, credentials loaded, every limit kept.
//
// The way of a file:
//
//	Load    reads it
//	Parse   YAML → nodes with lines (document.go)
//	        nodes → layers of entries, unknown and doubled keys (layer.go)
//	        defaults under each app, entries → text (expand.go)
//	        text → fields by the tables of fields.go, with their limits
//	        what concerns several fields or several apps (check.go)
//	        certificates and roots (credential.go)
//
// Nothing stops at the first fault: the error is a Faults value that holds all
// of them, each with its line, key and what to do. Faults quote what the file
// says, never what a variable or a secret file expands to.
package config
