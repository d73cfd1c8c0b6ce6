package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	durationPattern = `^(0|[0-9]+d|([0-9]+d)?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	sizePattern     = `^[0-9]+ ?(B|KiB|MiB|GiB)?$`
	datePattern     = `^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2}))?$`
	prefixPattern   = `^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`
)

// Schema gives the JSON Schema (2020-12) of the file, for editors. It is made from the types and Keys; what
// keys mean together only Load judges.
func Schema() []byte {
	s := &schema{keys: map[string]Key{}}
	for _, k := range Keys() {
		s.keys[k.Path] = k
	}
	root := s.of(reflect.TypeFor[Config](), "")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "csfproxy configuration"
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil { // maps of strings, numbers and booleans always marshal
		return []byte("{}")
	}
	return append(out, '\n')
}

type schema struct{ keys map[string]Key }

// of describes a type at a key path.
func (s *schema) of(t reflect.Type, path string) map[string]any {
	k := s.keys[path]
	m := s.form(t, path, k)
	if k.Doc != "" {
		m["description"] = k.Doc
		if k.Otherwise != "" {
			m["description"] = k.Doc + " Default: " + k.Otherwise + "."
		}
	}
	if k.Default != "" {
		var v any
		if yaml.Unmarshal([]byte(k.Default), &v) == nil {
			if t.Kind() == reflect.String { // "1.2" is a text there
				v = k.Default
			}
			m["default"] = v
		}
	}
	return m
}

func (s *schema) form(t reflect.Type, path string, k Key) map[string]any {
	switch reflect.Zero(t).Interface().(type) {
	case Duration:
		return map[string]any{"type": []string{"string", "integer"}, "pattern": durationPattern, "maximum": 0, "minimum": 0}
	case Size:
		m := map[string]any{"type": []string{"string", "integer"}, "pattern": sizePattern}
		return withBounds(m, k)
	case Date:
		return map[string]any{"type": "string", "pattern": datePattern}
	case netip.Prefix:
		return map[string]any{"type": "string", "pattern": prefixPattern}
	case Secret:
		return map[string]any{"type": "string", "minLength": 1}
	}
	switch t.Kind() {
	case reflect.Struct:
		return s.section(t, path)
	case reflect.Slice:
		return s.list(t, path, k)
	case reflect.Int:
		return withBounds(map[string]any{"type": "integer"}, k)
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Pointer:
		return s.form(t.Elem(), path, k)
	}
	m := map[string]any{"type": "string"}
	if k.Enum != nil {
		m["enum"] = k.Enum
	}
	return m
}

// withBounds adds a number's bounds; where 0 means the default, it is permitted beside them.
func withBounds(m map[string]any, k Key) map[string]any {
	m["minimum"] = k.Min
	if k.ZeroDefault {
		m["minimum"] = 0
	}
	if k.Max > 0 {
		m["maximum"] = k.Max
	}
	return m
}

func (s *schema) list(t reflect.Type, path string, k Key) map[string]any {
	items := s.form(t.Elem(), path+"[]", Key{})
	if k.Enum != nil {
		items["enum"] = k.Enum
	}
	m := map[string]any{"type": "array", "items": items}
	if k.Required {
		m["minItems"] = 1
	}
	return m
}

func (s *schema) section(t reflect.Type, path string) map[string]any {
	properties := map[string]any{}
	var required []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := yamlName(f)
		if name == "" {
			continue
		}
		sub := join(path, name)
		properties[name] = s.of(f.Type, sub)
		if s.keys[sub].Required || s.needed(f.Type, sub) {
			required = append(required, name)
		}
	}
	m := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		m["required"] = required
	}
	return m
}

// needed says whether a section holds required keys, so that it cannot be left out itself.
func (s *schema) needed(t reflect.Type, path string) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for _, k := range s.keys {
		if rest, ok := strings.CutPrefix(k.Path, path+"."); ok && k.Required && !strings.Contains(rest, "[]") {
			return true
		}
	}
	return false
}
