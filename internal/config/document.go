package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// KeyTable writes the table of all keys as Markdown, one section for each top-level key.
func KeyTable() string {
	var b strings.Builder
	section := ""
	for _, k := range Keys() {
		if top, _, _ := strings.Cut(strings.ReplaceAll(k.Path, "[]", ""), "."); top != section {
			section = top
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | type | default | meaning |\n|---|---|---|---|\n", top, k.Doc)
			if !strings.Contains(k.Path, ".") && isSection(typeAt(k.Path)) {
				continue
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Path, typeName(k), defaultText(k), cell(k))
	}
	return b.String()
}

func defaultText(k Key) string {
	switch {
	case k.Required:
		return "**required**"
	case k.Otherwise != "":
		return k.Otherwise
	case k.Default != "":
		return "`" + k.Default + "`"
	}
	return ""
}

func cell(k Key) string {
	text := k.Doc
	if k.Enum != nil {
		text += " One of `" + strings.Join(k.Enum, "`, `") + "`."
	}
	if k.Max > 0 || k.Min > 1 {
		text += " " + strings.ToUpper(bounds(k)[:1]) + bounds(k)[1:] + "."
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// typeAt gives the Go type that holds a key of the table.
func typeAt(path string) reflect.Type {
	t := reflect.TypeFor[Config]()
	for step := range strings.SplitSeq(path, ".") {
		name := strings.TrimSuffix(step, "[]")
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		i, ok := fieldNames(t)[name]
		if !ok {
			return nil
		}
		t = t.Field(i).Type
	}
	return t
}

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[netip.Prefix]()
}

// typeName names a key's type as a reader of the documentation knows it.
func typeName(k Key) string {
	t := typeAt(k.Path)
	plural := ""
	if t.Kind() == reflect.Slice {
		t, plural = t.Elem(), "list of "
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch reflect.Zero(t).Interface().(type) {
	case Duration:
		return plural + "duration"
	case Size:
		return plural + "size"
	case Date:
		return plural + "date"
	case Secret:
		return plural + "secret"
	case netip.Prefix:
		return plural + "network"
	}
	switch t.Kind() {
	case reflect.Struct:
		return plural + "section"
	case reflect.Int:
		return plural + "number"
	case reflect.Bool:
		return plural + "true or false"
	}
	return plural + "text"
}
