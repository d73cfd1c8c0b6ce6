package pack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// compareJSON holds a file of JSON against what it should say and counts the values. The error names the first path
// that differs, with ids instead of places where the things of a list have one.
func compareJSON(name string, raw []byte, want any) (int, error) {
	b, err := json.Marshal(want)
	if err != nil {
		return 0, err
	}
	claimed, err := tree(raw)
	if err != nil {
		return 0, wrong(name, "%v", err)
	}
	computed, err := tree(b)
	if err != nil {
		return 0, err
	}
	n := 0
	return n + countValues(computed), differ(name, claimed, computed)
}

func tree(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func countValues(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			n += countValues(e)
		}
	case []any:
		for _, e := range v {
			n += countValues(e)
		}
	default:
		n = 1
	}
	return n
}

func differ(path string, claimed, computed any) error {
	switch c := computed.(type) {
	case map[string]any:
		k, ok := claimed.(map[string]any)
		if !ok {
			return wrong(path, "says %s, where an object is due", text(claimed))
		}
		for _, name := range slices.Sorted(maps.Keys(c)) {
			v, ok := k[name]
			if !ok {
				return wrong(path+"."+name, "is missing; the leaves give %s", text(c[name]))
			}
			if err := differ(path+"."+name, v, c[name]); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(k)) {
			if _, ok := c[name]; !ok {
				return wrong(path+"."+name, "says %s, the leaves give none", text(k[name]))
			}
		}
		return nil
	case []any:
		k, ok := claimed.([]any)
		if !ok {
			return wrong(path, "says %s, where a list is due", text(claimed))
		}
		for i := range min(len(c), len(k)) {
			if err := differ(path+"["+label(c[i], i)+"]", k[i], c[i]); err != nil {
				return err
			}
		}
		if len(k) != len(c) {
			return wrong(path, "has %d entries, the leaves give %d", len(k), len(c))
		}
		return nil
	}
	if claimed != computed {
		return wrong(path, "says %s, the leaves give %s", text(claimed), text(computed))
	}
	return nil
}

// label names an entry of a list by its id, or by its place.
func label(v any, i int) string {
	if m, ok := v.(map[string]any); ok {
		for _, name := range []string{"id", "control", "test", "state", "name", "subject"} {
			if s, ok := m[name].(string); ok && s != "" {
				return fmt.Sprintf("%.80s", s)
			}
		}
	}
	return fmt.Sprint(i)
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return clip(b)
}
