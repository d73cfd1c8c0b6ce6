// Package config reads the one configuration file: strict YAML, every value checked, every error with
// file, line, key and what to do.
//
// It guarantees that a Config that Load returned is complete: defaults set, references to files and to the
// environment resolved, nothing unknown, nothing expired that would open a door. It starts no goroutine,
// prints no secret and connects to nothing.
package config
