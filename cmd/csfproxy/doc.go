// Command csfproxy is the ingress of a PostgreSQL estate and what its operators and auditors type.
// Each file is one command; what a command does is in the packages it calls.
package main
