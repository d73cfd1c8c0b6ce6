// Package docs checks the user documentation against the program: tables that are made from it, links, and every
// command, flag, kind, reason, rule and configuration key that a page names.
//
// It holds tests only. UPDATE=1 go test ./internal/docs writes the tables anew.
package docs
