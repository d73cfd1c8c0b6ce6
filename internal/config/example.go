package config

import _ "embed"

//go:embed example.yaml
var example []byte

// Example gives a commented file of every section. It checks clean as it is: what refers to files or other
// machines stands in comments.
func Example() []byte { return append([]byte(nil), example...) }
