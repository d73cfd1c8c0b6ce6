package web

import (
	"fmt"
	"html/template"
	"sort"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// functions are what the templates call.
func functions() template.FuncMap {
	return template.FuncMap{
		"shape": shape, "class": class, "moment": moment, "since": since, "bytes": size, "facts": facts,
		"short": short, "key": random, "dict": dict, "day": func(t time.Time) string { return t.UTC().Format("2006-01-02") },
		"kindDoc": func(k csf.Kind) string { info, _ := k.Info(); return info.Doc },
	}
}

// shape gives each state a mark of its own, so that no state is told by colour alone.
func shape(state string) string {
	switch strings.ToUpper(state) {
	case "EFFECTIVE", "OK", "PASSED", "SUCCEEDED", "UP":
		return "●"
	case "EXCEPTION", "DEGRADED", "PAUSED", "MEDIUM":
		return "◐"
	case "FAILED", "CRITICAL", "HIGH", "OPEN", "DOWN", "ROLLED-BACK", "WOULD-FAIL":
		return "✕"
	case "STALE", "VOID", "ABANDONED":
		return "◇"
	case "SUPPORTED", "LOW", "RUNNING":
		return "△"
	case "OUT OF SCOPE", "SKIPPED", "PENDING", "CLOSED":
		return "–"
	}
	return "○"
}

// class gives the class of the style sheet that colours the state.
func class(state string) string {
	switch shape(state) {
	case "●":
		return "good"
	case "◐", "◇":
		return "warn"
	case "✕":
		return "bad"
	case "△":
		return "info"
	}
	return "none"
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// since gives a length of time between two moments in words of one unit.
func since(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "–"
	}
	switch d := to.Sub(from); {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n)/unit, "KMGTPE"
	for value >= unit && len(units) > 1 {
		value, units = value/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}

// facts gives the facts of an event in one line, in the order of their names.
func facts(f csf.Facts) string {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	sort.Strings(names)
	words := make([]string, 0, len(names))
	for _, name := range names {
		text, ok := f[name].(string)
		if !ok {
			text = fmt.Sprint(f[name])
		}
		words = append(words, name+": "+text)
	}
	return strings.Join(words, " · ")
}

// short gives the end of an id, by which people tell UUIDs of version 7 apart.
func short(id string) string {
	if len(id) > 12 {
		return "…" + id[len(id)-12:]
	}
	return id
}

// dict gives a map of names and values to a template that takes several.
func dict(pairs ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no name", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}
